//! What follows a product, by itself: for a product whose result something is added to before.

use super::gemm::{Into, finish};
use super::side::SIDE;
use super::simd::{LANES_MOST, Simd};
use super::{Cpu, at_level};

/// Puts each number of `y` at its place in `out`, as a product puts its own: `act(y)`, `out + y` or `act(y) * out`.
///
/// # Panics
/// If the two differ in length.
pub fn follow(cpu: Cpu, how: Into, y: &[f32], out: &mut [f32]) {
    assert_eq!(y.len(), out.len());
    let (y, out, count) = (y.as_ptr(), out.as_mut_ptr(), out.len());
    // SAFETY: both have `count` numbers.
    at_level!(cpu, follow_at(how: Into, y: *const f32, out: *mut f32, count: usize));
}

/// # Safety
/// `y` and `out` are good for `count` numbers, and the processor has the level.
#[inline(always)]
unsafe fn follow_at<S: Simd>(how: Into, y: *const f32, out: *mut f32, count: usize) {
    let mut few = [0f32; SIDE * LANES_MOST];
    let room = SIDE * S::LANES;
    for first in (0..count).step_by(room) {
        let width = (count - first).min(room);
        // SAFETY: the caller's; all goes by way of whole vectors on the stack.
        unsafe {
            std::ptr::copy_nonoverlapping(y.add(first), few.as_mut_ptr(), width);
            how.activate::<S>(few.as_mut_ptr(), width.div_ceil(S::LANES));
            for at in (0..width).step_by(S::LANES) {
                finish::<S>(S::load(few.as_ptr().add(at)), out.add(first + at), width - at, how);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Act;
    use crate::testing::{cpus, near, numbers};

    #[test]
    fn it_follows_as_a_product_does() {
        for cpu in cpus() {
            for count in [0, 1, 7, 16, 37, 96] {
                let (y, there) = (numbers(1, count), numbers(2, count));
                for act in [Act::Identity, Act::Relu, Act::Silu] {
                    let plain = |y: f32| match act {
                        Act::Relu => y.max(0.),
                        Act::Silu => y / (1. + (-y).exp()),
                        _ => y,
                    };
                    for how in [Into::Place(act), Into::Sum, Into::Gate(act)] {
                        let mut out = there.clone();
                        follow(cpu, how, &y, &mut out);
                        let expected = y.iter().zip(&there).map(|(y, there)| match how {
                            Into::Place(_) => plain(*y),
                            Into::Sum => there + y,
                            Into::Gate(_) => plain(*y) * there,
                        });
                        near(&out, &expected.collect::<Vec<_>>(), 1e-5, "follows");
                    }
                }
            }
        }
    }
}
