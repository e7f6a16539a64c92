//! What a request costs step by step: parsing, tokenising, forming a batch, the forward pass, writing the answer.
//!
//! `cargo bench --bench ops` needs the real all-MiniLM-L6-v2 in the cache (the README's first command puts it there).

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vecmill::engine::load::{DType, Device, Loaded, Options, load_dir};
use vecmill::engine::queue::{Budget, Queue, Submission, Twin};
use vecmill::ragged::Packed;
use vecmill::service::tokenizer::TextEncoder;
use vecmill::wire::Truncate;
use vecmill::wire::request::{Encoding, Limits, parse};
use vecmill::wire::response::{Vectors, native_embed};

const SENTENCE: &str = "The river that rises in these hills flows past three old mills before it reaches the sea. ";

fn model(dtype: Option<DType>) -> Loaded {
    let home = std::env::var_os("HOME").map(PathBuf::from).expect("HOME is set");
    let cache = std::env::var_os("VECMILL_CACHE_DIR").map_or_else(|| home.join(".cache/vecmill"), PathBuf::from);
    load_dir(&cache.join("models/all-MiniLM-L6-v2"), &Options { dtype, device: Device::Cpu, ..Options::default() })
        .expect("the README's first command has cached the model")
}

/// A text of about 124 tokens.
fn text(number: usize) -> String {
    format!("{number} {}", SENTENCE.repeat(6))
}

fn parsing(c: &mut Criterion) {
    let texts: Vec<String> = (0..64).map(text).collect();
    let body = serde_json::to_vec(&serde_json::json!({"model": "m", "input": texts})).expect("strings");
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("64 texts", |b| b.iter(|| parse(black_box(body.as_slice()), Limits { max_texts: 2048 }, |_| false)));
    group.finish();
}

fn tokenizing(c: &mut Criterion) {
    let loaded = model(None);
    let encoder = TextEncoder::load(&loaded.info).expect("the model's own tokenizer");
    let text = text(0);
    let tokens = encoder.encode(&text, "", Truncate::None, loaded.info.max_tokens).expect("a short text").len();
    let mut group = c.benchmark_group("tokenize");
    group.throughput(Throughput::Elements(tokens as u64));
    group.bench_function("one text", |b| b.iter(|| encoder.encode(black_box(&text), "", Truncate::None, 256)));
    group.finish();
}

/// A waiting text; one in ten is asked for a second time.
struct Text(u64);

impl Twin for Text {
    fn digest(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn is_twin(&self, other: &Self) -> bool {
        self.0 == other.0
    }
    fn join(&mut self, _: Self) {}
}

fn batching(c: &mut Criterion) {
    let deadline = Instant::now() + Duration::from_secs(3600);
    let full = || {
        let mut queue = Queue::new(usize::MAX);
        queue.add_model(Budget { tokens: 4096, bulk_tokens: 4096, texts: 512 });
        for id in 0..1000 {
            let jobs = (0..4).map(|text| (Text((id * 4 + text) % 3600), 20 + ((id * 7 + text) % 200) as usize)).collect();
            queue.submit(Submission { id, model: 0, client: id % 50, weight: 1, bulk: false, deadline, jobs }).expect("no limit");
        }
        queue
    };
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(4000));
    group.bench_function("submit 1000 requests of 4 texts", |b| b.iter(full));
    let drain = |mut queue: Queue<Text>| while queue.next(black_box(Instant::now())).batch.is_some() {};
    group.bench_function("form all their batches", |b| b.iter_batched(full, drain, BatchSize::LargeInput));
    group.finish();
}

fn forward(c: &mut Criterion) {
    let dtypes = [DType::F32, DType::Int8].map(|dtype| (dtype, model(Some(dtype))));
    let encoder = TextEncoder::load(&dtypes[0].1.info).expect("the model's own tokenizer");
    let mut group = c.benchmark_group("forward");
    group.sample_size(10);
    for texts in [1, 8, 32] {
        let tokens: Vec<_> = (0..texts).map(|number| encoder.encode(&text(number), "", Truncate::End, 256).expect("cut to length")).collect();
        let batch = Packed::new(&tokens);
        group.throughput(Throughput::Elements(batch.tokens() as u64));
        for (dtype, loaded) in &dtypes {
            group.bench_function(format!("{texts} x 124 tokens in {dtype}"), |b| b.iter(|| loaded.pipeline.encode(black_box(&batch))));
        }
    }
    group.finish();
}

fn writing(c: &mut Criterion) {
    let values: Vec<f32> = (0..64 * 384).map(|i| ((i * 2_654_435_761_usize % 1_000_003) as f32 / 1_000_003.0 - 0.5) / 10.0).collect();
    let vectors = Vectors { values: &values, dim: 384, original_tokens: &[None; 64], prompt_tokens: 64 * 124 };
    let mut group = c.benchmark_group("write 64 vectors of 384");
    group.throughput(Throughput::Elements(values.len() as u64));
    for (name, encoding) in [("floats", Encoding::Float), ("base64", Encoding::Base64)] {
        group.bench_function(name, |b| b.iter(|| native_embed(black_box(&vectors), encoding, "m", "req_1")));
    }
    group.finish();
}

criterion_group!(ops, parsing, tokenizing, batching, forward, writing);
criterion_main!(ops);
