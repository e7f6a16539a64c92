//! The engine with made-up models behind it: answers in order, failures contained, clients that leave, a thread that dies.

use super::pipeline::Flight;
use super::*;
use crate::ragged::Packed;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

/// What a test puts on the device: a function of a batch, with the row of a text made from its first id.
pub(super) struct Fake<F>(pub(super) F);

impl<F: Fn(&Packed) -> Result<Vec<f32>, ComputeError>> Compute for Fake<F> {
    fn dim(&self) -> usize {
        2
    }
    fn longest(&self) -> usize {
        512
    }
    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        (self.0)(batch)
    }
    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        let row = rows(batch);
        Ok(if row[0] == 666.0 { vec![f32::NAN; 2] } else { row })
    }
}

/// `[first id, length]` of each text.
pub(super) fn rows(batch: &Packed) -> Vec<f32> {
    batch.segments.ranges().flat_map(|range| [batch.ids[range.start] as f32, range.len() as f32]).collect()
}

fn text(id: u32, len: usize) -> Tokens {
    Tokens::whole(vec![id; len])
}

fn options() -> Options {
    Options { max_batch_tokens: Some(64), max_batch_texts: Some(8), max_queue_tokens: 10_000, profile: None }
}

async fn engine(encode: impl Fn(&Packed) -> Result<Vec<f32>, ComputeError> + Send + 'static) -> (Engine, ModelId) {
    let engine = one_device();
    let ready = engine.load("m", vec![Box::new(|| Ok(Box::new(Fake(encode))))]).await.unwrap();
    (engine, ready.model)
}

fn one_device() -> Engine {
    Engine::start(options(), &["fake".to_owned()]).unwrap()
}

fn work(model: ModelId, texts: Vec<Tokens>) -> Work {
    Work { model, client: 0, weight: 1, bulk: false, deadline: soon(), texts }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn rows_come_back_in_the_order_of_the_texts() {
    let (engine, model) = engine(|batch| Ok(rows(batch))).await;
    let texts: Vec<_> = (0..100).map(|id| text(id, 1 + id as usize % 30)).collect();
    let computed = engine.submit(work(model, texts)).unwrap().wait_until(soon()).await.unwrap();
    let expected: Vec<f32> = (0..100).flat_map(|id| [id as f32, (1 + id % 30) as f32]).collect();
    assert_eq!(computed.vectors, expected);
}

#[tokio::test]
async fn a_failing_batch_is_split_until_only_the_bad_text_fails() {
    let (engine, model) = engine(|batch| match batch.ids.contains(&13) {
        true if batch.texts() % 2 == 0 => panic!("a kernel gave up"),
        true => Err(ComputeError::OutOfMemory(candle_core::Error::Msg("made up".into()))),
        false => Ok(rows(batch)),
    })
    .await;
    let tickets: Vec<_> = (10..18).map(|id| engine.submit(work(model, vec![text(id, 3)])).unwrap()).collect();
    for (id, ticket) in (10..18).zip(tickets) {
        let result = ticket.wait_until(soon()).await;
        match id {
            13 => assert!(matches!(result, Err(Failure::Compute(_))), "{result:?}"),
            id => assert_eq!(result.unwrap().vectors, [id as f32, 3.0]),
        }
    }
    assert!(engine.is_alive());
}

#[tokio::test]
async fn a_non_finite_row_is_mended_in_f32_or_its_request_fails() {
    let (engine, model) = engine(|batch| {
        let spoil = |value: f32| if value == 7.0 || value == 666.0 { f32::INFINITY } else { value };
        Ok(rows(batch).into_iter().map(spoil).collect())
    })
    .await;
    let mended = engine.submit(work(model, vec![text(1, 2), text(7, 2)])).unwrap();
    assert_eq!(mended.wait_until(soon()).await.unwrap().vectors, [1.0, 2.0, 7.0, 2.0]);
    let lost = engine.submit(work(model, vec![text(1, 2), text(666, 2)])).unwrap();
    assert!(matches!(lost.wait_until(soon()).await, Err(Failure::Compute(_))));
}

#[tokio::test]
async fn what_a_client_left_behind_is_not_computed() {
    let (started, wait_for_start) = mpsc::channel();
    let (go, wait_for_go) = mpsc::channel::<()>();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let (engine, model) = engine(move |batch| {
        if batch.ids[0] == 500 {
            started.send(()).unwrap();
            wait_for_go.recv().unwrap();
        }
        count.fetch_add(batch.ids.iter().filter(|id| **id == 501).count(), Ordering::Relaxed);
        Ok(rows(batch))
    })
    .await;
    let first = engine.submit(work(model, vec![text(500, 4)])).unwrap();
    wait_for_start.recv().unwrap();
    let abandoned = engine.submit(work(model, vec![text(501, 4)])).unwrap();
    assert_eq!(engine.queued_tokens(), 4);
    drop(abandoned);
    assert_eq!(engine.queued_tokens(), 0);
    let last = engine.submit(work(model, vec![text(502, 4)])).unwrap();
    go.send(()).unwrap();
    first.wait_until(soon()).await.unwrap();
    last.wait_until(soon()).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_whole_requests() {
    let (engine, model) = engine(|batch| Ok(rows(batch))).await;
    let refusal = engine.submit(work(model, vec![text(1, 500); 21])).err();
    assert!(matches!(refusal, Some(Refusal::Full { .. })), "{refusal:?}");
    assert_eq!(engine.queued_tokens(), 0);
}

#[tokio::test]
async fn what_no_idle_server_could_do_in_time_is_refused_as_such() {
    let (engine, model) = engine(|batch| Ok(rows(batch))).await;
    let mut late = work(model, vec![text(1, 500); 10]);
    late.deadline = Instant::now();
    assert!(matches!(engine.submit(late).err(), Some(Refusal::TooSlow { tokens: 5000, .. })));
}

#[tokio::test]
async fn stopping_finishes_what_waits_and_takes_nothing_new() {
    let (engine, model) = engine(|batch| Ok(rows(batch))).await;
    let tickets: Vec<_> = (0..50).map(|id| engine.submit(work(model, vec![text(id, 20)])).unwrap()).collect();
    engine.stop();
    assert_eq!(engine.submit(work(model, vec![text(1, 1)])).err(), Some(Refusal::Stopped));
    for ticket in tickets {
        ticket.wait_until(soon()).await.unwrap();
    }
    engine.ended().await;
    assert!(!engine.is_alive());
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why() {
    let engine = one_device();
    let refused = engine.load("m", vec![Box::new(|| anyhow::bail!("tensor x is missing"))]).await.unwrap_err();
    assert_eq!(refused.to_string(), "tensor x is missing");
    let panicked = engine.load("m", vec![Box::new(|| panic!("index out of bounds"))]).await.unwrap_err();
    assert!(panicked.to_string().contains("index out of bounds"));
    assert!(engine.is_alive());
}

#[tokio::test]
async fn when_the_thread_dies_nobody_waits_for_ever() {
    struct Bomb;
    impl Compute for Bomb {
        fn dim(&self) -> usize {
            1
        }
        fn longest(&self) -> usize {
            1
        }
        fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
            Ok(vec![0.0; batch.texts()])
        }
        fn encode_f32(&self, _: &Packed) -> Result<Vec<f32>, ComputeError> {
            Ok(vec![0.0])
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the thread dies here");
        }
    }
    let engine = one_device();
    let ready = engine.load("m", vec![Box::new(|| Ok(Box::new(Bomb)))]).await.unwrap();
    engine.stop();
    engine.ended().await;
    assert_eq!(engine.submit(work(ready.model, vec![text(1, 1)])).err(), Some(Refusal::Stopped));
    assert!(engine.load("m", vec![Box::new(|| Ok(Box::new(Bomb)))]).await.is_err());
}

#[tokio::test]
async fn a_short_request_overtakes_bulk_work_between_two_operations() {
    let (started, wait_for_start) = mpsc::channel();
    let (go, wait_for_go) = mpsc::channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let (engine, model) = engine(move |batch| {
        if batch.ids[0] == 500 {
            started.send(()).unwrap();
            wait_for_go.recv().unwrap();
            crate::exec::between::here();
            crate::exec::between::here();
        }
        seen.lock().unwrap().push(batch.ids[0]);
        Ok(rows(batch))
    })
    .await;
    let bulk = engine.submit(Work { bulk: true, ..work(model, vec![text(500, 40)]) }).unwrap();
    wait_for_start.recv().unwrap();
    order.lock().unwrap().clear();
    let behind = engine.submit(Work { bulk: true, ..work(model, vec![text(501, 40)]) }).unwrap();
    let short = engine.submit(work(model, vec![text(502, 4)])).unwrap();
    go.send(()).unwrap();
    assert_eq!(short.wait_until(soon()).await.unwrap().vectors, [502.0, 4.0]);
    assert_eq!(bulk.wait_until(soon()).await.unwrap().vectors, [500.0, 40.0]);
    behind.wait_until(soon()).await.unwrap();
    assert_eq!(*order.lock().unwrap(), [502, 500, 501]);
}

#[tokio::test]
async fn a_text_asked_for_many_times_at_once_is_computed_once() {
    let (started, wait_for_start) = mpsc::channel();
    let (go, wait_for_go) = mpsc::channel::<()>();
    let computed = Arc::new(Mutex::new(Vec::new()));
    let seen = computed.clone();
    let (engine, model) = engine(move |batch| {
        if batch.ids[0] == 500 {
            started.send(()).unwrap();
            wait_for_go.recv().unwrap();
        }
        seen.lock().unwrap().extend(batch.segments.ranges().map(|range| batch.ids[range.start]));
        Ok(rows(batch))
    })
    .await;
    let first = engine.submit(work(model, vec![text(500, 4)])).unwrap();
    wait_for_start.recv().unwrap();
    computed.lock().unwrap().clear();
    // The same text while it is computed, two texts twice in one request, and one whose prompt counts differently.
    let during = engine.submit(work(model, vec![text(500, 4)])).unwrap();
    let double = engine.submit(work(model, vec![text(501, 4), text(502, 4), text(501, 4), text(500, 4)])).unwrap();
    let other = engine.submit(work(model, vec![Tokens { prompt_len: 2, ..text(501, 4) }])).unwrap();
    go.send(()).unwrap();
    for ticket in [first, during] {
        assert_eq!(ticket.wait_until(soon()).await.unwrap().vectors, [500.0, 4.0]);
    }
    assert_eq!(double.wait_until(soon()).await.unwrap().vectors, [501.0, 4.0, 502.0, 4.0, 501.0, 4.0, 500.0, 4.0]);
    other.wait_until(soon()).await.unwrap();
    let mut computed = computed.lock().unwrap().clone();
    computed.sort_unstable();
    assert_eq!(computed, [500, 501, 501, 502]);
}

#[tokio::test]
async fn a_client_that_leaves_takes_no_twin_along() {
    let (started, wait_for_start) = mpsc::channel();
    let (go, wait_for_go) = mpsc::channel::<()>();
    let (engine, model) = engine(move |batch| {
        if batch.ids[0] == 500 {
            started.send(()).unwrap();
            wait_for_go.recv().unwrap();
        }
        Ok(rows(batch))
    })
    .await;
    let first = engine.submit(work(model, vec![text(500, 4)])).unwrap();
    wait_for_start.recv().unwrap();
    let leaves = engine.submit(work(model, vec![text(501, 4)])).unwrap();
    let stays = engine.submit(work(model, vec![text(501, 4)])).unwrap();
    drop(leaves);
    drop(first);
    go.send(()).unwrap();
    assert_eq!(stays.wait_until(soon()).await.unwrap().vectors, [501.0, 4.0]);
}

/// A device that computes beside the thread that feeds it, and notes what it is told; memory for `most` tokens at a time.
struct Beside {
    notes: Arc<Mutex<Vec<String>>>,
    most: usize,
}

impl Compute for Beside {
    fn dim(&self) -> usize {
        2
    }
    fn longest(&self) -> usize {
        512
    }
    fn start(&self, batch: &Packed) -> Result<Flight, ComputeError> {
        let (rows, id, notes) = (rows(batch), batch.ids[0], self.notes.clone());
        if batch.tokens() > self.most {
            return Err(ComputeError::OutOfMemory(candle_core::Error::Msg("made up".into())));
        }
        notes.lock().unwrap().push(format!("start {id}"));
        Ok(Flight::later(move || {
            notes.lock().unwrap().push(format!("finish {id}"));
            Ok(rows)
        }))
    }
    fn overlaps(&self) -> bool {
        true
    }
    fn encode(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        self.start(batch)?.finish()
    }
    fn encode_f32(&self, batch: &Packed) -> Result<Vec<f32>, ComputeError> {
        Ok(rows(batch))
    }
}

/// An engine on such a device, with the device's notes after the warm-up.
async fn beside(most: usize, options: Options) -> (Engine, ModelId, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let engine = Engine::start(options, &["cpu".to_owned()]).unwrap();
    let device = Beside { notes: notes.clone(), most };
    let ready = engine.load("m", vec![Box::new(move || Ok(Box::new(device)))]).await.unwrap();
    notes.lock().unwrap().clear();
    (engine, ready.model, notes)
}

#[tokio::test]
async fn the_next_batch_is_given_to_the_device_before_the_last_one_is_awaited() {
    let (engine, model, notes) = beside(usize::MAX, Options { max_batch_texts: Some(1), ..options() }).await;
    // One request whose texts are batches of their own: they all wait when the first is taken.
    let answer = engine.submit(work(model, vec![text(1, 3), text(2, 3), text(3, 3)])).unwrap().wait_until(soon()).await.unwrap();
    assert_eq!(answer.vectors, [1.0, 3.0, 2.0, 3.0, 3.0, 3.0]);
    assert_eq!(*notes.lock().unwrap(), ["start 1", "start 2", "finish 1", "start 3", "finish 2", "finish 3"]);
}

#[tokio::test]
async fn a_device_that_runs_out_of_memory_gets_the_batch_in_halves() {
    let (engine, model, notes) = beside(256, Options { max_batch_tokens: Some(1000), ..options() }).await;
    let texts: Vec<_> = (1..=4).map(|id| text(id, 100)).collect();
    let answer = engine.submit(work(model, texts)).unwrap().wait_until(soon()).await.unwrap();
    assert_eq!(answer.vectors.chunks(2).map(|row| row[0]).collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(*notes.lock().unwrap(), ["start 1", "finish 1", "start 3", "finish 3"]);
    // A text that is too large alone fails alone.
    let tickets: Vec<_> = [(5, 10), (6, 300), (7, 10)].map(|(id, len)| engine.submit(work(model, vec![text(id, len)])).unwrap()).into();
    let mut results = Vec::new();
    for ticket in tickets {
        results.push(ticket.wait_until(soon()).await.is_ok());
    }
    assert_eq!(results, [true, false, true]);
}
