//! One replica of a real network per device, here twice the processor: whichever computes a text, its vector is the same.

use crate::models::{Model, exact, max_abs_diff, tiny};
use std::time::{Duration, Instant};
use vecmill::engine::load::load_dir;
use vecmill::engine::{Compute, Engine, Make, Options, Work};

#[tokio::test]
async fn two_replicas_give_the_vectors_of_one() {
    let dir = tiny("bert").swap_remove(0);
    let model = Model::load(&dir);
    let texts: Vec<_> = (0..200).map(|n| model.tokens(&"the cat sat on the mat. ".repeat(1 + n % 5), "")).collect();
    let want: Vec<f32> = texts.chunks(16).flat_map(|texts| model.vectors(texts)).flatten().collect();

    let options = Options { max_batch_tokens: Some(200), max_batch_texts: None, max_queue_tokens: 1_000_000, profile: None };
    let engine = Engine::start(options, &["cpu:0".to_owned(), "cpu:1".to_owned()]).expect("starts");
    let make =
        |dir: std::path::PathBuf| -> Make { Box::new(move || -> anyhow::Result<Box<dyn Compute>> { Ok(Box::new(load_dir(&dir, &exact())?)) }) };
    let ready = engine.load("tiny", vec![make(dir.clone()), make(dir)]).await.expect("loads");
    let deadline = Instant::now() + Duration::from_secs(60);
    let work = Work { model: ready.model, client: 0, weight: 1, bulk: true, deadline, texts };
    let computed = engine.submit(work).expect("admitted").wait_until(deadline).await.expect("computed");
    assert!(max_abs_diff(&computed.vectors, &want) <= 1e-6, "off by {}", max_abs_diff(&computed.vectors, &want));
}
