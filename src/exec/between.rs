//! Points between the operations of a forward pass, at which the thread that ordered it may do something shorter first.
//!
//! The executors call [`here`]; what happens there, if anything, is said by whoever runs them. A thread-local, because only the thread that called
//! the executor may turn to something else: its helpers have work of their own, and the models live on that one thread.

use std::cell::Cell;
use std::rc::Rc;

/// What is done at the points.
pub type Hook = Rc<dyn Fn()>;

thread_local! {
    static HOOK: Cell<Option<Hook>> = const { Cell::new(None) };
}

/// Runs `work` with `hook` called at the points that this thread comes to on the way.
pub fn with<R>(hook: Hook, work: impl FnOnce() -> R) -> R {
    let _outer = PutBack(HOOK.replace(Some(hook)));
    work()
}

/// Such a point. What the hook runs has points of its own, at which nothing happens: what overtakes is not overtaken.
pub fn here() {
    if let Some(hook) = HOOK.take() {
        let _later = PutBack(Some(hook.clone()));
        hook();
    }
}

/// Puts the hook back however the scope ends, by a panic too.
struct PutBack(Option<Hook>);

impl Drop for PutBack {
    fn drop(&mut self) {
        HOOK.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_hook_is_called_within_its_scope_and_not_from_itself() {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        here();
        with(
            Rc::new(move || {
                seen.set(seen.get() + 1);
                here();
            }),
            || {
                here();
                here();
            },
        );
        here();
        assert_eq!(count.get(), 2);
    }

    #[test]
    fn a_hook_that_panics_stays_and_goes_with_its_scope() {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        let hook = Rc::new(move || {
            seen.set(seen.get() + 1);
            panic!("told to");
        });
        let point = || catch_unwind(AssertUnwindSafe(here)).is_err();
        assert!(with(hook, || point() && point()));
        assert!(!point());
        assert_eq!(count.get(), 2);
    }
}
