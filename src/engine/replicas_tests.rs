//! Several devices behind one queue: they share the work, and one that fails loses no request.

use super::tests::{Fake, rows, soon};
use super::*;
use crate::ragged::Packed;
use std::sync::mpsc;

/// Ids below this are those of the warm-up and of the engine's own question whether a device still works.
const FIRST: u32 = 100;

fn made(encode: impl Fn(&Packed) -> Result<Vec<f32>, ComputeError> + Send + 'static) -> Make {
    Box::new(|| Ok(Box::new(Fake(encode))))
}

fn broken() -> ComputeError {
    ComputeError::Failed(candle_core::Error::Msg("an illegal address".into()))
}

async fn engine(devices: Vec<Make>) -> (Engine, ModelId) {
    let options = Options { max_batch_tokens: Some(64), max_batch_texts: Some(8), max_queue_tokens: 100_000, profile: None };
    let names: Vec<String> = (0..devices.len()).map(|index| format!("fake:{index}")).collect();
    let engine = Engine::start(options, &names).unwrap();
    let ready = engine.load("m", devices).await.unwrap();
    (engine, ready.model)
}

fn texts(ids: std::ops::Range<u32>) -> Vec<Tokens> {
    ids.map(|id| Tokens::whole(vec![id; 1 + id as usize % 7])).collect()
}

fn submit(engine: &Engine, model: ModelId, ids: std::ops::Range<u32>) -> Ticket {
    engine.submit(Work { model, client: 0, weight: 1, bulk: false, deadline: soon(), texts: texts(ids) }).unwrap()
}

fn expected(ids: std::ops::Range<u32>) -> Vec<f32> {
    ids.flat_map(|id| [id as f32, (1 + id % 7) as f32]).collect()
}

/// A device that, at its first batch of a client, waits for another device to have one too.
fn meets(told: mpsc::Sender<()>, wait: mpsc::Receiver<()>) -> Make {
    made(move |batch| {
        if batch.ids[0] >= FIRST {
            // Sent once too often at the end; then nobody listens.
            let _ = told.send(());
            wait.recv_timeout(Duration::from_secs(30)).map_err(|_| broken())?;
        }
        Ok(rows(batch))
    })
}

#[tokio::test]
async fn two_devices_compute_at_the_same_time() {
    let ((to_second, from_first), (to_first, from_second)) = (mpsc::channel(), mpsc::channel());
    let (engine, model) = engine(vec![meets(to_second, from_second), meets(to_first, from_first)]).await;
    // Two batches of eight: neither device can finish one before the other has begun its own.
    let ticket = submit(&engine, model, 100..116);
    assert_eq!(ticket.wait_until(soon()).await.unwrap().vectors, expected(100..116));
}

/// Fails from its first batch of a client on, for ever, and says that it has.
fn dies(told: mpsc::Sender<()>) -> Make {
    let dead = std::cell::Cell::new(false);
    made(move |batch| {
        if batch.ids[0] >= FIRST || dead.get() {
            dead.set(true);
            let _ = told.send(());
            return Err(broken());
        }
        Ok(rows(batch))
    })
}

/// Computes nothing of a client until told.
fn waits(wait: mpsc::Receiver<()>) -> Make {
    let may = std::cell::Cell::new(false);
    made(move |batch| {
        if batch.ids[0] >= FIRST && !may.get() {
            wait.recv_timeout(Duration::from_secs(30)).map_err(|_| broken())?;
            may.set(true);
        }
        Ok(rows(batch))
    })
}

#[tokio::test]
async fn a_device_that_fails_hands_its_work_to_the_other() {
    let (told, wait) = mpsc::channel();
    let (engine, model) = engine(vec![dies(told), waits(wait)]).await;
    let tickets: Vec<_> = (0..20).map(|n| submit(&engine, model, 100 + 16 * n..116 + 16 * n)).collect();
    for (n, ticket) in (0..20).zip(tickets) {
        assert_eq!(ticket.wait_until(soon()).await.unwrap().vectors, expected(100 + 16 * n..116 + 16 * n), "request {n}");
    }
    assert!(engine.is_alive());
    assert_eq!(engine.shared.lock().devices(), 1);
    let later = submit(&engine, model, 900..950);
    assert_eq!(later.wait_until(soon()).await.unwrap().vectors, expected(900..950));
}

#[tokio::test]
async fn when_the_last_device_fails_everyone_is_told_and_the_engine_ends() {
    let (told, _kept) = mpsc::channel();
    let (engine, model) = engine(vec![dies(told.clone()), dies(told)]).await;
    let ticket = submit(&engine, model, 100..150);
    assert_eq!(ticket.wait_until(soon()).await.unwrap_err(), Failure::Dead);
    engine.ended().await;
    let work = Work { model, client: 0, weight: 1, bulk: false, deadline: soon(), texts: texts(100..101) };
    assert_eq!(engine.submit(work).err(), Some(Refusal::Stopped));
}

#[tokio::test]
async fn a_text_that_no_device_can_compute_costs_no_device() {
    let device = || made(|batch| if batch.ids.contains(&113) { Err(broken()) } else { Ok(rows(batch)) });
    let (engine, model) = engine(vec![device(), device()]).await;
    let (good, bad) = (submit(&engine, model, 100..110), submit(&engine, model, 110..120));
    assert_eq!(good.wait_until(soon()).await.unwrap().vectors, expected(100..110));
    assert!(matches!(bad.wait_until(soon()).await, Err(Failure::Compute(_))));
    assert_eq!(engine.shared.lock().devices(), 2);
}

#[tokio::test]
async fn a_model_is_served_when_every_device_has_it() {
    let (engine, first) = engine(vec![made(|batch| Ok(rows(batch))), made(|batch| Ok(rows(batch)))]).await;
    let refused = engine.load("half", vec![made(|batch| Ok(rows(batch))), Box::new(|| anyhow::bail!("out of memory"))]).await.unwrap_err();
    assert_eq!(refused.to_string(), "out of memory");
    let third = engine.load("third", vec![made(|batch| Ok(rows(batch))), made(|batch| Ok(rows(batch)))]).await.unwrap().model;
    for model in [first, third] {
        assert_eq!(submit(&engine, model, 200..240).wait_until(soon()).await.unwrap().vectors, expected(200..240));
    }
    let work = Work { model: first + 1, client: 0, weight: 1, bulk: false, deadline: soon(), texts: texts(100..101) };
    assert_eq!(engine.submit(work).err(), Some(Refusal::Stopped));
}
