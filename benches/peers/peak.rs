//! The most that this processor multiplies, by element: the floor under every engine's time. Prints one JSON object.
//!
//! Loops of the level's best instruction on registers alone, enough chains of them to hide its latency, on each of the threads that the one argument
//! says. An addition and a multiplication are two operations. Where the processor lacks the instruction, the element is null. Without VNNI, int8
//! is counted by two `vpmaddubsw`, added in 16 bits, widened by `vpmaddwd` and added: the fastest product we know there that small enough numbers keep
//! exact. Ours has one `vpmaddubsw` to a `vpmaddwd`, for numbers less small (the sum is also a factor, else the products would be hoisted).

use std::time::Instant;

/// Instructions in flight.
const CHAINS: usize = 12;
const ROUNDS: usize = 4_000_000;
const REPEATS: usize = 5;

fn main() {
    let threads: usize = std::env::args().nth(1).and_then(|said| said.parse().ok()).unwrap_or(1);
    let told = [("f32", kernels::f32()), ("bf16", kernels::bf16()), ("int8", kernels::int8())];
    let told = told.map(|(element, kernel)| {
        let best = kernel.map(|(instruction, operations, run)| {
            let speed = (0..REPEATS).map(|_| speed(threads, operations, run)).fold(0.0, f64::max);
            serde_json::json!({ "instruction": instruction, "gops": speed })
        });
        (element.to_owned(), best.unwrap_or_default())
    });
    println!("{}", serde_json::Value::from_iter(told));
}

/// 10^9 operations a second of all threads together.
fn speed(threads: usize, operations: usize, run: fn()) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    (threads * operations * CHAINS * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// The name of an instruction, its operations, and a loop of `ROUNDS` times `CHAINS` of it.
type Kernel = (&'static str, usize, fn());

#[cfg(target_arch = "x86_64")]
mod kernels {
    use super::{CHAINS, Kernel, ROUNDS};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// `ROUNDS` times every chain; the operands come through `black_box`, so that nothing is known of them.
    macro_rules! kernel {
        ($name:ident, $features:literal, $register:ty, $zero:expr, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
            fn $name() {
                #[target_feature(enable = $features)]
                fn run() {
                    let ($a, $b) = (black_box($zero), black_box($zero));
                    let mut sums: [$register; CHAINS] = black_box([$zero; CHAINS]);
                    for _ in 0..ROUNDS {
                        for $sum in &mut sums {
                            *$sum = $step;
                        }
                    }
                    black_box(sums);
                }
                // SAFETY: offered below only where the processor has the features.
                unsafe { run() }
            }
        };
    }

    kernel!(fma_ymm, "avx2,fma", __m256, _mm256_setzero_ps(), |sum, a, b| _mm256_fmadd_ps(a, b, *sum));
    kernel!(fma_zmm, "avx512f", __m512, _mm512_setzero_ps(), |sum, a, b| _mm512_fmadd_ps(a, b, *sum));
    kernel!(fours_ymm, "avx2", __m256i, _mm256_setzero_si256(), |sum, a, b| {
        let four = _mm256_add_epi16(_mm256_maddubs_epi16(*sum, a), _mm256_maddubs_epi16(*sum, b));
        _mm256_add_epi32(_mm256_madd_epi16(four, a), b)
    });
    kernel!(vnni_ymm, "avx2,avxvnni", __m256i, _mm256_setzero_si256(), |sum, a, b| _mm256_dpbusd_avx_epi32(*sum, a, b));
    kernel!(vnni_zmm, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), |sum, a, b| _mm512_dpbusd_epi32(*sum, a, b));
    kernel!(bf16_zmm, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), |sum, a, b| {
        // SAFETY: both are 64 bytes of any bits.
        let (a, b) = unsafe { (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)) };
        _mm512_dpbf16_ps(*sum, a, b)
    });

    pub fn f32() -> Option<Kernel> {
        match () {
            () if is_x86_feature_detected!("avx512f") => Some(("vfmadd, 512 bits", 32, fma_zmm)),
            () if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => Some(("vfmadd, 256 bits", 16, fma_ymm)),
            () => None,
        }
    }

    pub fn bf16() -> Option<Kernel> {
        is_x86_feature_detected!("avx512bf16").then_some(("vdpbf16ps, 512 bits", 64, bf16_zmm))
    }

    pub fn int8() -> Option<Kernel> {
        match () {
            () if is_x86_feature_detected!("avx512vnni") => Some(("vpdpbusd, 512 bits", 128, vnni_zmm)),
            () if is_x86_feature_detected!("avxvnni") => Some(("vpdpbusd, 256 bits", 64, vnni_ymm)),
            () if is_x86_feature_detected!("avx2") => Some(("two vpmaddubsw, vpaddw, vpmaddwd and vpaddd, 256 bits", 128, fours_ymm)),
            () => None,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod kernels {
    use super::Kernel;

    pub fn f32() -> Option<Kernel> {
        None
    }

    pub fn bf16() -> Option<Kernel> {
        None
    }

    pub fn int8() -> Option<Kernel> {
        None
    }
}
