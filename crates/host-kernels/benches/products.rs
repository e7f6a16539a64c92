//! Products of MiniLM's shapes by element, in alternated runs on one thread: `cargo bench -p vecmill-host-kernels`.
//!
//! Prints the best of many runs in 10^9 operations a second (a multiplication and an addition are two), against f32, and of the time the share in which
//! the operand is turned (quantised, or rounded).

use std::hint::black_box;
use std::time::Instant;
use vecmill_host_kernels::gemm::{Into, product};
use vecmill_host_kernels::operand::{Rows, Turned};
use vecmill_host_kernels::pack::Packed;
use vecmill_host_kernels::pool::Team;
use vecmill_host_kernels::{Act, Cpu, Element};

const ROUNDS: usize = 40;
/// Multiplications in one timing, at least.
const WORK: usize = 100_000_000;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.).collect()
}

/// Seconds.
fn timed(times: usize, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..times).for_each(|_| work());
    start.elapsed().as_secs_f64() / times as f64
}

fn main() {
    let Some(cpu) = Cpu::best() else { return println!("this processor has no kernels of its own") };
    let team = Team::alone();
    println!("level {:?}; rows x inner x columns", cpu.level());
    for (rows, inner, columns) in [(256, 384, 1152), (256, 384, 384), (256, 384, 1536), (256, 1536, 384), (14, 384, 1536)] {
        let (x, w) = (numbers(rows * inner), numbers(inner * columns));
        let packed = [Element::F32, Element::Bf16, Element::Int8].map(|element| Packed::new(cpu, element, &w, inner, &[]));
        let (mut turned, mut out, mut best) = (Turned::default(), vec![0.; rows * columns], [[f64::MAX; 2]; 3]);
        let times = (WORK / (rows * inner * columns)).max(1);
        for _ in 0..ROUNDS {
            for (weights, best) in packed.iter().zip(&mut best) {
                let all = timed(times, || {
                    let x = turned.operand(&team, Rows::dense(&x, rows, inner), weights);
                    product(&team, x, weights, black_box(&mut out), columns, Into::Place(Act::Identity));
                });
                let turning = timed(times, || {
                    black_box(turned.operand(&team, Rows::dense(&x, rows, inner), weights));
                });
                *best = [best[0].min(all), best[1].min(turning)];
            }
        }
        let line = packed.iter().zip(best).map(|(weights, [all, turning])| {
            let speed = 2. * (rows * inner * columns) as f64 / all / 1e9;
            format!("{:?} {speed:.1} ({:.2}x, turning {:.1} %)", weights.element(), best[0][0] / all, 100. * turning / all)
        });
        println!("{rows} x {inner} x {columns}: {}", line.collect::<Vec<_>>().join("; "));
    }
}
