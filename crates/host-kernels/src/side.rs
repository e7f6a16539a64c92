//! Some vectors at once, one operation after the other: chains of operations that wait for nothing but themselves then overlap.
//!
//! A processor looks only a few dozen operations ahead. A function such as exp is a chain of that many, each of which waits for the one before; written
//! for several vectors at a time, there is always one of them to go on with.

use super::simd::{Arith, Simd};
use std::marker::PhantomData;

/// Vectors that a function of them is computed for at once.
pub(super) const SIDE: usize = 4;

/// `N` vectors.
pub(super) struct Side<S, const N: usize>(PhantomData<S>);

/// The same operation on each.
macro_rules! each {
    ($($name:ident($($x:ident),+));+ $(;)?) => {
        $(#[inline(always)]
        unsafe fn $name($($x: [S::V; N]),+) -> [S::V; N] {
            // SAFETY: the caller's, for whom the level is there.
            let mut all = unsafe { [S::splat(0.); N] };
            for (index, all) in all.iter_mut().enumerate() {
                // SAFETY: as above.
                *all = unsafe { S::$name($($x[index]),+) };
            }
            all
        })+
    };
}

// SAFETY: needs what `S` needs.
unsafe impl<S: Simd, const N: usize> Arith for Side<S, N> {
    type V = [S::V; N];
    #[inline(always)]
    unsafe fn splat(x: f32) -> [S::V; N] {
        // SAFETY: the caller's.
        unsafe { [S::splat(x); N] }
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

/// `N` vectors that stand in a row.
///
/// # Safety
/// `p` is good for them, and the processor has the level.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const N: usize>(p: *const f32) -> [S::V; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut all = [S::splat(0.); N];
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
pub(super) unsafe fn store<S: Simd, const N: usize>(p: *mut f32, x: [S::V; N]) {
    for (index, x) in x.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { S::store(p.add(index * S::LANES), x) };
    }
}
