//! What surrounds a layer's products: attention, and a product's endings, in alternated runs on one thread: `cargo bench -p vecmill-host-kernels`.
//!
//! Prints the best of many runs in nanoseconds a token, of MiniLM's shapes.

use std::hint::black_box;
use std::time::Instant;
use vecmill_host_kernels::attention::{Bias, Projected, Scratches, Spec, attend};
use vecmill_host_kernels::gemm::{Into, product};
use vecmill_host_kernels::norm::{Norm, norm};
use vecmill_host_kernels::operand::{Rows, Turned};
use vecmill_host_kernels::pack::Packed;
use vecmill_host_kernels::pool::Team;
use vecmill_host_kernels::{Act, Cpu, Element};

const ROUNDS: usize = 40;
const WIDTH: usize = 384;
const HEADS: usize = 12;

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.).collect()
}

/// Something to time, and what it is called.
type Work<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Nanoseconds that each of some kinds of work takes for a token, the best of all rounds.
fn best(tokens: usize, works: &mut [Work]) -> String {
    let mut best = vec![f64::MAX; works.len()];
    for _ in 0..ROUNDS {
        for ((_, work), best) in works.iter_mut().zip(&mut best) {
            let start = Instant::now();
            work();
            *best = best.min(start.elapsed().as_secs_f64() * 1e9 / tokens as f64);
        }
    }
    works.iter().zip(best).map(|((name, _), best)| format!("{name} {best:.0}")).collect::<Vec<_>>().join("; ")
}

fn main() {
    let Some(cpu) = Cpu::best() else { return println!("this processor has no kernels of its own") };
    let team = &Team::alone();
    println!("level {:?}; ns a token", cpu.level());
    for (texts, len) in [(18, 14), (2, 128), (1, 512)] {
        let tokens = texts * len;
        let texts: Vec<_> = (0..texts).map(|text| text * len..(text + 1) * len).collect();
        let qkv = numbers(tokens * 3 * WIDTH);
        let mut works: Vec<Work> = Vec::new();
        for (name, element) in [("f32", Element::F32), ("bf16", Element::Bf16)] {
            let (mut out, scratches, texts, data) = (vec![0.; tokens * WIDTH], Scratches::default(), &texts, &qkv);
            let spec = Spec { heads: HEADS, kv_heads: HEADS, dim: WIDTH / HEADS, scale: 0.2, causal: false, reach: None, bias: Bias::None, element };
            works.push((
                name,
                Box::new(move || attend(cpu, team, Projected { data, stride: 3 * WIDTH }, texts, &spec, black_box(&mut out), &scratches)),
            ));
        }
        println!("attention within {len} tokens: {}", best(tokens, &mut works));
    }
    const TOKENS: usize = 192;
    let (x, w) = (numbers(TOKENS * WIDTH), numbers(WIDTH * 4 * WIDTH));
    let packed = Packed::new(cpu, Element::F32, &w, WIDTH, &[]);
    let mut works: Vec<Work> = Vec::new();
    for (name, how) in [("place", Into::Place(Act::Identity)), ("gelu", Into::Place(Act::Gelu)), ("sum", Into::Sum), ("gate", Into::Gate(Act::Silu))]
    {
        let (x, packed, mut turned, mut out) = (&x, &packed, Turned::default(), vec![0.; TOKENS * 4 * WIDTH]);
        works.push((
            name,
            Box::new(move || {
                let x = turned.operand(team, Rows::dense(x, TOKENS, WIDTH), packed);
                product(team, x, packed, black_box(&mut out), 4 * WIDTH, how);
            }),
        ));
    }
    let by = Norm { weight: vec![1.; WIDTH], bias: vec![0.; WIDTH], eps: 1e-12, centred: true };
    let mut rows = x.clone();
    works.push(("norm", Box::new(move || norm(cpu, black_box(&mut rows), &by))));
    println!("{WIDTH} to {} in f32: {}", 4 * WIDTH, best(TOKENS, &mut works));
}
