//! The queue's promises, checked on random traffic and on the cases that each promise is about.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const BUDGET: Budget = Budget { tokens: 100, bulk_tokens: 100, texts: 8 };

fn submission(id: RequestId, client: u64, deadline: Instant, lens: &[usize]) -> Submission<(RequestId, usize)> {
    let jobs = lens.iter().enumerate().map(|(index, &tokens)| ((id, index), tokens)).collect();
    Submission { id, model: 0, client, weight: 1, bulk: false, deadline, jobs }
}

fn queue(limit_tokens: usize, models: usize) -> Queue<(RequestId, usize)> {
    let mut queue = Queue::new(limit_tokens);
    (0..models).for_each(|_| {
        queue.add_model(BUDGET);
    });
    queue
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// All batches until nothing waits.
fn drain(queue: &mut Queue<(RequestId, usize)>) -> Vec<Batch<(RequestId, usize)>> {
    let now = Instant::now();
    std::iter::from_fn(|| queue.next(now).batch).collect()
}

#[test]
fn a_query_does_not_wait_for_the_bulk_request_before_it() {
    let mut queue = queue(100_000, 1);
    queue.submit(submission(1, 1, later(), &[50; 2000])).unwrap();
    queue.next(Instant::now());
    queue.submit(submission(2, 2, later(), &[10])).unwrap();
    let batch = queue.next(Instant::now()).batch.unwrap();
    assert_eq!((batch.lane, batch.jobs), (Lane::Interactive, vec![(2, 0)]));
}

#[test]
fn bulk_gets_one_batch_in_four_under_endless_queries() {
    let mut queue = queue(100_000, 1);
    queue.submit(submission(1, 1, later(), &[50; 100])).unwrap();
    let mut lanes = Vec::new();
    for id in 2..42 {
        for part in 0..4 {
            queue.submit(submission(id * 10 + part, id * 10 + part, later(), &[50])).unwrap();
        }
        lanes.push(queue.next(Instant::now()).batch.unwrap().lane);
    }
    for four in lanes.windows(4) {
        assert!(four.contains(&Lane::Bulk), "four batches without bulk: {four:?}");
    }
    assert_eq!(lanes.iter().filter(|lane| **lane == Lane::Bulk).count(), 10);
}

#[test]
fn clients_share_the_bulk_lane_by_tokens() {
    let mut queue = queue(100_000, 1);
    queue.submit(submission(1, 1, later(), &[25; 200])).unwrap();
    queue.submit(submission(2, 2, later(), &[50; 100])).unwrap();
    let mut served = [0usize; 3];
    for _ in 0..20 {
        for (id, _) in queue.next(Instant::now()).batch.unwrap().jobs {
            served[id as usize] += if id == 1 { 25 } else { 50 };
        }
    }
    assert!(served[1].abs_diff(served[2]) <= 50, "{served:?}");
}

#[test]
fn a_heavier_client_gets_its_multiple() {
    let mut queue = Queue::new(1_000_000);
    queue.add_model(Budget { tokens: 100, bulk_tokens: 100, texts: 1000 });
    let deadline = Instant::now() + Duration::from_secs(60);
    for (client, weight) in [(1, 3), (2, 1)] {
        let request = Submission { weight, ..submission(client, client, deadline, &[10; 400]) };
        queue.submit(request).unwrap();
    }
    let served: Vec<RequestId> = (0..40).flat_map(|_| queue.next(Instant::now()).batch.unwrap().jobs).map(|(id, _)| id).collect();
    let first = served.iter().filter(|id| **id == 1).count();
    assert!((299..=301).contains(&first), "{first} of {} texts", served.len());
}

#[test]
fn requests_of_one_client_share_one_turn() {
    let mut queue = queue(100_000, 1);
    for id in 1..=9 {
        queue.submit(submission(id, 1, later(), &[50; 20])).unwrap();
    }
    queue.submit(submission(10, 2, later(), &[50; 20])).unwrap();
    let first: Vec<_> = (0..10).flat_map(|_| queue.next(Instant::now()).batch.unwrap().jobs).collect();
    assert_eq!(first.iter().filter(|(id, _)| *id == 10).count(), 10, "half of the service goes to the second client");
}

#[test]
fn models_take_turns() {
    let mut queue = queue(100_000, 3);
    for model in 0..3 {
        let mut texts = submission(model as u64 + 1, 1, later(), &[50; 40]);
        texts.model = model;
        queue.submit(texts).unwrap();
    }
    let order: Vec<_> = (0..9).map(|_| queue.next(Instant::now()).batch.unwrap().model).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_text_over_the_budget_is_a_batch_of_its_own() {
    let mut queue = queue(100_000, 1);
    queue.submit(submission(1, 1, later(), &[10, 500, 10])).unwrap();
    let sizes: Vec<_> = drain(&mut queue).iter().map(|batch| batch.tokens).collect();
    assert_eq!(sizes, [10, 500, 10]);
}

#[test]
fn late_texts_are_dropped_before_compute() {
    let mut queue = queue(100_000, 1);
    let now = Instant::now();
    queue.submit(submission(1, 1, now, &[10, 10])).unwrap();
    queue.submit(submission(2, 2, now + Duration::from_secs(1), &[10])).unwrap();
    let next = queue.next(now);
    assert_eq!(next.expired, [(1, 0), (1, 1)]);
    assert_eq!(next.batch.unwrap().jobs, [(2, 0)]);
    assert_eq!((queue.queued_tokens(), queue.queued_texts()), (0, 0));
}

#[test]
fn a_full_queue_names_both_figures_and_keeps_room_for_queries() {
    let mut queue = queue(8000, 1);
    queue.submit(submission(1, 1, later(), &[50; 140])).unwrap();
    let full = queue.submit(submission(2, 2, later(), &[50; 20])).unwrap_err();
    assert_eq!(full, Full { queued_tokens: 7000, request_tokens: 1000, limit_tokens: 7000 });
    queue.submit(submission(3, 3, later(), &[50; 16])).unwrap();
    assert_eq!(queue.cancel(1).len(), 140);
    assert_eq!(queue.queued_tokens(), 800);
}

#[test]
fn texts_without_tokens_still_take_a_place() {
    let mut queue = queue(100, 1);
    queue.submit(submission(1, 1, later(), &[0, 0])).unwrap();
    assert_eq!(queue.queued_tokens(), 2);
    assert_eq!(drain(&mut queue).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Submit { client: u64, model: usize, lens: Vec<usize>, late: bool },
    Cancel(usize),
    Next,
}

fn step() -> impl Strategy<Value = Step> {
    let lens = prop_oneof![prop::collection::vec(1usize..200, 1..6), prop::collection::vec(1usize..60, 1..80)];
    prop_oneof![
        3 => (0u64..6, 0usize..3, lens, prop::bool::weighted(0.1)).prop_map(|(client, model, lens, late)| Step::Submit { client, model, lens, late }),
        1 => (0usize..64).prop_map(Step::Cancel),
        4 => Just(Step::Next),
    ]
}

/// A text's number of tokens, by request and place.
type Lens = HashMap<RequestId, (usize, Vec<usize>)>;

/// Every rule that a batch obeys.
fn check_batch(batch: &Batch<(RequestId, usize)>, waiting: &mut HashMap<RequestId, VecDeque<usize>>, lens: &Lens) {
    let tokens: usize = batch.jobs.iter().map(|(id, index)| lens[id].1[*index]).sum();
    assert_eq!(tokens, batch.tokens);
    assert!(batch.jobs.len() == 1 || tokens <= BUDGET.tokens, "{tokens} tokens");
    assert!(batch.jobs.len() <= BUDGET.texts);
    for (id, index) in &batch.jobs {
        assert_eq!(lens[id].0, batch.model, "one model per batch");
        assert_eq!(waiting.get_mut(id).and_then(VecDeque::pop_front), Some(*index), "texts in order, none twice, none cancelled");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_is_lost_or_repeated_and_limits_hold(steps in prop::collection::vec(step(), 1..120)) {
        let (mut queue, now) = (queue(3000, 3), Instant::now());
        let (mut lens, mut waiting): (Lens, HashMap<RequestId, VecDeque<usize>>) = Default::default();
        let mut late_ids = Vec::new();
        for (id, step) in steps.into_iter().enumerate() {
            let id = id as RequestId;
            match step {
                Step::Submit { client, model, lens: texts, late } => {
                    let deadline = if late { now } else { now + Duration::from_secs(60) };
                    let mut request = submission(id, client, deadline, &texts);
                    request.model = model;
                    let before = queue.queued_tokens();
                    match queue.submit(request) {
                        Ok(lane) => {
                            prop_assert_eq!(lane, Lane::of(texts.len(), texts.iter().sum(), false));
                            waiting.insert(id, (0..texts.len()).collect());
                            if late { late_ids.push(id) }
                        }
                        Err(full) => {
                            prop_assert!(full.queued_tokens + full.request_tokens > full.limit_tokens);
                            prop_assert_eq!(queue.queued_tokens(), before, "refused whole");
                        }
                    }
                    lens.insert(id, (model, texts));
                }
                Step::Cancel(pick) => {
                    let mut ids: Vec<_> = waiting.keys().copied().collect();
                    ids.sort_unstable();
                    if let Some(id) = ids.get(pick) {
                        let left = waiting.remove(id).unwrap();
                        prop_assert_eq!(queue.cancel(*id).len(), left.len());
                    }
                }
                Step::Next => {
                    let next = queue.next(now);
                    for (id, index) in next.expired {
                        prop_assert!(late_ids.contains(&id));
                        prop_assert_eq!(waiting.get_mut(&id).and_then(VecDeque::pop_front), Some(index));
                    }
                    match next.batch {
                        Some(batch) => {
                            prop_assert!(batch.jobs.iter().all(|(id, _)| !late_ids.contains(id)));
                            check_batch(&batch, &mut waiting, &lens);
                        }
                        None => prop_assert_eq!(queue.queued_tokens(), 0),
                    }
                }
            }
            let tokens: usize = waiting.iter().flat_map(|(id, left)| left.iter().map(|index| lens[id].1[*index])).sum();
            prop_assert_eq!(queue.queued_tokens(), tokens);
            prop_assert!(tokens <= queue.limit_tokens());
        }
        for batch in drain(&mut queue) {
            check_batch(&batch, &mut waiting, &lens);
        }
        prop_assert!(waiting.iter().all(|(id, left)| left.is_empty() || late_ids.contains(id)), "all was served");
        prop_assert_eq!((queue.queued_tokens(), queue.queued_texts(), queue.requests.len()), (0, 0, 0));
    }
}
