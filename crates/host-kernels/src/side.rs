//! Some vectors at once, one operation after the other: chains of operations that wait for nothing but themselves then overlap.
//!
//! A processor looks only a few dozen operations ahead. A function such as exp is a chain of that many, each of which waits for the one before; written
//! for several vectors at a time, there is always one of them to go on with.

use super::simd::{Arith, Simd};
use std::marker::PhantomData;

/// Vectors that a function of them is computed for at once.
pub(super) const SIDE: usize = 4;

/// `SIDE` vectors.
pub(super) struct Side<S>(PhantomData<S>);

/// The same operation on each.
macro_rules! each {
    ($($name:ident($($x:ident),+));+ $(;)?) => {
        $(#[inline(always)]
        unsafe fn $name($($x: [S::V; SIDE]),+) -> [S::V; SIDE] {
            // SAFETY: the caller's, for whom the level is there.
            let mut all = unsafe { [S::splat(0.); SIDE] };
            for (index, all) in all.iter_mut().enumerate() {
                // SAFETY: as above.
                *all = unsafe { S::$name($($x[index]),+) };
            }
            all
        })+
    };
}

// SAFETY: needs what `S` needs.
unsafe impl<S: Arith> Arith for Side<S> {
    type V = [S::V; SIDE];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [S::V; SIDE] {
        // SAFETY: the caller's.
        unsafe { [S::splat(x); SIDE] }
    }
    each! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        fma(a, b, c);
        max(a, b);
        min(a, b);
        round(x);
        exp2(n);
        select_sign(by, negative, other);
    }
}

/// `SIDE` vectors that stand in a row.
///
/// # Safety
/// `p` is good for them, and the processor has the level.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(p: *const f32) -> [S::V; SIDE] {
    // SAFETY: the caller's.
    unsafe {
        let mut all = [S::splat(0.); SIDE];
        for (index, all) in all.iter_mut().enumerate() {
            *all = S::load(p.add(index * S::LANES));
        }
        all
    }
}

/// Back to where they may stand.
///
/// # Safety
/// As `load`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(p: *mut f32, x: [S::V; SIDE]) {
    for (index, x) in x.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { S::store(p.add(index * S::LANES), x) };
    }
}
