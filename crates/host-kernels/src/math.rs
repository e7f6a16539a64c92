//! Functions of vectors: exp and the activations, to the last few bits of f32.

use super::Act;
use super::side::{self, SIDE, Side};
use super::simd::{Arith, Simd};

/// `e^x`, correct to about one part in 10^7; as at the ends of -87..88 beyond them. Cody and Waite's reduction and a polynomial on half a binary
/// step. NaN stays NaN: the order of the operands of `min` and `max` sees to that.
///
/// # Safety
/// As `Arith`.
#[inline(always)]
pub(super) unsafe fn exp<S: Arith>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let clamped = S::max(S::splat(-87.), S::min(S::splat(88.), x));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first of which times n is exact.
        let r = S::fma(n, S::splat(-0.693_359_4), clamped);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_5e-2, 0.166_666_65, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let p = S::fma(S::mul(p, r), r, S::add(r, S::splat(1.)));
        S::mul(p, S::exp2(n))
    }
}

/// `x * Phi(x)`: erfc by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7.
///
/// # Safety
/// As `Arith`.
#[inline(always)]
unsafe fn gelu<S: Arith>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let one = S::splat(1.);
        let z = S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2));
        // Beyond 9 erfc is 0 here; what is smaller than a normal number would be slow to multiply.
        let z = S::min(S::splat(9.), S::max(z, S::sub(S::splat(0.), z)));
        let t = S::div(one, S::fma(z, S::splat(0.327_591_1), one));
        let mut p = S::splat(1.061_405_4);
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = S::fma(p, t, S::splat(c));
        }
        let half_erfc = S::mul(S::mul(S::mul(p, t), exp::<S>(S::sub(S::splat(0.), S::mul(z, z)))), S::splat(0.5));
        S::mul(x, S::select_sign(x, half_erfc, S::sub(one, half_erfc)))
    }
}

/// # Safety
/// As `Arith`.
#[inline(always)]
unsafe fn sigmoid<S: Arith>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        // No larger, or the quotient would be smaller than a normal number, which is slow to multiply.
        let x = S::max(S::splat(-87.), x);
        S::div(S::splat(1.), S::add(S::splat(1.), exp::<S>(S::sub(S::splat(0.), x))))
    }
}

/// # Safety
/// As `Arith`.
#[inline(always)]
unsafe fn tanh<S: Arith>(x: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::sub(S::mul(S::splat(2.), sigmoid::<S>(S::add(x, x))), S::splat(1.)) }
}

/// Applies an activation to some vectors side by side, in place.
///
/// # Safety
/// `y` is good for so many vectors; the processor has the level.
#[inline(always)]
pub(super) unsafe fn activate_all<S: Simd>(y: *mut f32, vectors: usize, act: Act) {
    if act == Act::Identity {
        return;
    }
    let whole = vectors / SIDE * SIDE;
    // SAFETY: the caller's.
    unsafe {
        for at in (0..whole).step_by(SIDE).map(|vector| vector * S::LANES) {
            side::store::<S>(y.add(at), activate::<Side<S>>(side::load::<S>(y.add(at)), act));
        }
        for at in (whole..vectors).map(|vector| vector * S::LANES) {
            S::store(y.add(at), activate::<S>(S::load(y.add(at)), act));
        }
    }
}

/// Applies an activation.
///
/// # Safety
/// As `Arith`.
#[inline(always)]
unsafe fn activate<S: Arith>(x: S::V, act: Act) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        match act {
            Act::Identity => x,
            Act::Gelu => gelu::<S>(x),
            Act::GeluTanh => {
                let cubic = S::mul(x, S::fma(S::mul(x, x), S::splat(0.044_715), S::splat(1.)));
                // x / 2 * (1 + tanh(y)) = x * sigmoid(2 y)
                S::mul(x, sigmoid::<S>(S::mul(cubic, S::splat(2. * 0.797_884_6))))
            }
            Act::Relu => S::max(S::splat(0.), x),
            Act::Sigmoid => sigmoid::<S>(x),
            Act::Silu => S::mul(x, sigmoid::<S>(x)),
            Act::Tanh => tanh::<S>(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Scalar;

    fn exact(x: f64, act: Act) -> f64 {
        match act {
            Act::Identity => x,
            Act::Gelu => 0.5 * x * erfc(-x / 2f64.sqrt()),
            Act::GeluTanh => 0.5 * x * (1. + ((2. / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
            Act::Relu => x.max(0.),
            Act::Sigmoid => 1. / (1. + (-x).exp()),
            Act::Silu => x / (1. + (-x).exp()),
            Act::Tanh => x.tanh(),
        }
    }

    /// By its integral, in steps small enough for nine digits.
    fn erfc(x: f64) -> f64 {
        let steps = 20_000;
        let h = x / steps as f64;
        let f = |t: f64| (-t * t).exp();
        let inner: f64 = (1..steps).map(|i| f(i as f64 * h) * if i % 2 == 1 { 4. } else { 2. }).sum();
        1. - 2. / std::f64::consts::PI.sqrt() * h / 3. * (f(0.) + inner + f(x))
    }

    #[test]
    fn activations_equal_their_definitions() {
        for act in [Act::Identity, Act::Gelu, Act::GeluTanh, Act::Relu, Act::Sigmoid, Act::Silu, Act::Tanh] {
            for step in -120..=120 {
                let x = step as f32 / 10.;
                // SAFETY: the scalar level needs nothing.
                let got = unsafe { activate::<Scalar>(x, act) };
                let want = exact(f64::from(x), act);
                assert!((f64::from(got) - want).abs() <= 4e-7 * want.abs().max(1.), "{act:?}({x}) = {got}, not {want}");
            }
        }
    }

    #[test]
    fn exp_is_exact_to_seven_digits_and_keeps_nan() {
        for step in -860..=880 {
            let x = step as f32 / 10.;
            // SAFETY: the scalar level needs nothing.
            let got = f64::from(unsafe { exp::<Scalar>(x) });
            let want = f64::from(x).exp();
            assert!((got / want - 1.).abs() < 3e-7, "exp({x}) = {got}, not {want}");
        }
        // SAFETY: as above.
        let [low, zero, nan] = unsafe { [f32::NEG_INFINITY, 0., f32::NAN].map(|x| exp::<Scalar>(x)) };
        assert!(low < 1e-37 && zero == 1. && nan.is_nan());
    }
}
