//! The queue's promises, checked on random traffic and on the cases that each promise is about.

use super::*;
use proptest::prelude::*;
use std::time::Duration;

const BUDGET: Budget = Budget { tokens: 100, bulk_tokens: 100, texts: 8 };

/// A text that says what it is.
#[derive(Debug, Clone)]
struct Text {
    /// Its request and place there.
    at: (RequestId, usize),
    what: u64,
    /// The twins that have joined.
    twins: Vec<(RequestId, usize)>,
}

impl Text {
    /// Unlike all others.
    fn unique(at: (RequestId, usize)) -> Self {
        Self { at, what: at.0 * 1000 + at.1 as u64, twins: Vec::new() }
    }

    /// Like all of the same number.
    fn of(what: u64, at: (RequestId, usize)) -> Self {
        Self { what, ..Self::unique(at) }
    }
}

impl Twin for Text {
    /// Digests of different texts meet here more often than in life.
    fn digest(&self) -> u64 {
        self.what / 2
    }
    fn is_twin(&self, other: &Self) -> bool {
        self.what == other.what
    }
    fn join(&mut self, twin: Self) {
        self.twins.push(twin.at);
        self.twins.extend(twin.twins);
    }
}

fn ats(texts: &[Text]) -> Vec<(RequestId, usize)> {
    texts.iter().map(|text| text.at).collect()
}

fn submission(id: RequestId, client: u64, deadline: Instant, lens: &[usize]) -> Submission<Text> {
    let jobs = lens.iter().enumerate().map(|(index, &tokens)| (Text::unique((id, index)), tokens)).collect();
    Submission { id, model: 0, client, weight: 1, bulk: false, deadline, jobs }
}

/// Texts of ten tokens by their numbers.
fn alike(id: RequestId, whats: &[u64]) -> Submission<Text> {
    let jobs = whats.iter().enumerate().map(|(index, &what)| (Text::of(what, (id, index)), 10)).collect();
    Submission { jobs, ..submission(id, id, later(), &[]) }
}

fn queue(limit_tokens: usize, models: usize) -> Queue<Text> {
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
fn drain(queue: &mut Queue<Text>) -> Vec<Batch<Text>> {
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
    assert_eq!((batch.lane, ats(&batch.jobs)), (Lane::Interactive, vec![(2, 0)]));
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
        for (id, _) in ats(&queue.next(Instant::now()).batch.unwrap().jobs) {
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
    let served: Vec<RequestId> = (0..40).flat_map(|_| ats(&queue.next(Instant::now()).batch.unwrap().jobs)).map(|(id, _)| id).collect();
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
    let first: Vec<_> = (0..10).flat_map(|_| ats(&queue.next(Instant::now()).batch.unwrap().jobs)).collect();
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
    assert_eq!(ats(&next.expired), [(1, 0), (1, 1)]);
    assert_eq!(ats(&next.batch.unwrap().jobs), [(2, 0)]);
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

#[test]
fn equal_texts_are_computed_once_for_all_that_ask() {
    let mut queue = queue(100_000, 2);
    queue.submit(alike(1, &[4, 5, 4])).unwrap();
    queue.submit(alike(2, &[5])).unwrap();
    queue.submit(Submission { model: 1, ..alike(3, &[4]) }).unwrap();
    let batch = queue.next(Instant::now()).batch.unwrap();
    assert_eq!((ats(&batch.jobs), batch.tokens), (vec![(1, 0), (2, 0)], 20));
    assert_eq!([&batch.jobs[0].twins, &batch.jobs[1].twins], [&[(1, 2)], &[(1, 1)]]);
    assert_eq!(ats(&queue.next(Instant::now()).batch.unwrap().jobs), [(3, 0)], "another model's text is another text");
    assert_eq!((queue.queued_tokens(), queue.queued_texts(), queue.waiting.is_empty()), (0, 0, true));
}

#[test]
fn a_text_that_comes_while_its_twin_is_computed_joins_it() {
    let mut queue = queue(100_000, 1);
    queue.submit(alike(1, &[4])).unwrap();
    let mut computed = queue.next(Instant::now()).batch.unwrap().jobs.remove(0);
    queue.submit(alike(2, &[6, 4, 7])).unwrap();
    queue.submit(Submission { bulk: true, ..alike(3, &[4]) }).unwrap();
    queue.join_twins(0, &mut computed);
    assert_eq!(computed.twins, [(2, 1), (3, 0)]);
    assert_eq!(ats(&queue.next(Instant::now()).batch.unwrap().jobs), [(2, 0), (2, 2)]);
    assert_eq!((queue.queued_tokens(), queue.queued_texts(), queue.waiting.is_empty()), (0, 0, true));
}

#[test]
fn a_short_request_does_not_wait_for_a_bulk_batch_with_its_text() {
    let mut queue = Queue::new(100_000);
    queue.add_model(BUDGET);
    queue.submit(Submission { bulk: true, ..alike(1, &[4]) }).unwrap();
    let bulk = |queue: &mut Queue<Text>| queue.fill(Lane::Bulk, 0, Instant::now(), &mut Vec::new());
    queue.submit(alike(2, &[4])).unwrap();
    assert!(bulk(&mut queue).jobs[0].twins.is_empty());
    queue.submit(Submission { bulk: true, ..alike(3, &[4]) }).unwrap();
    assert_eq!(queue.next(Instant::now()).batch.unwrap().jobs[0].twins, [(3, 0)], "bulk work rides along for nothing");
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
fn check_batch(batch: &Batch<Text>, waiting: &mut HashMap<RequestId, VecDeque<usize>>, lens: &Lens) {
    let jobs = ats(&batch.jobs);
    let tokens: usize = jobs.iter().map(|(id, index)| lens[id].1[*index]).sum();
    assert_eq!(tokens, batch.tokens);
    assert!(batch.jobs.len() == 1 || tokens <= BUDGET.tokens, "{tokens} tokens");
    assert!(batch.jobs.len() <= BUDGET.texts);
    for (id, index) in &jobs {
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
                    for (id, index) in ats(&next.expired) {
                        prop_assert!(late_ids.contains(&id));
                        prop_assert_eq!(waiting.get_mut(&id).and_then(VecDeque::pop_front), Some(index));
                    }
                    match next.batch {
                        Some(batch) => {
                            prop_assert!(batch.jobs.iter().all(|text| !late_ids.contains(&text.at.0)));
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
        prop_assert_eq!((queue.queued_tokens(), queue.queued_texts(), queue.waiting.is_empty()), (0, 0, true));
    }

    #[test]
    fn every_text_is_served_by_exactly_one_that_is_the_same(steps in prop::collection::vec(prop_oneof![
        3 => (prop::collection::vec(0u64..12, 1..20), any::<bool>()).prop_map(Some),
        2 => Just(None),
    ], 1..60)) {
        let mut queue = queue(100_000, 1);
        let (mut asked, mut served) = (HashMap::new(), HashMap::new());
        let mut serve = |batch: Batch<Text>| {
            assert!(batch.jobs.len() <= BUDGET.texts && batch.tokens == 10 * batch.jobs.len());
            for text in batch.jobs {
                for at in text.twins.iter().chain([&text.at]) {
                    assert_eq!(served.insert(*at, text.what), None, "served twice");
                }
            }
        };
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Some((whats, bulk)) => {
                    asked.extend(whats.iter().enumerate().map(|(index, what)| ((id as RequestId, index), *what)));
                    queue.submit(Submission { bulk, ..alike(id as RequestId, &whats) }).unwrap();
                }
                None => queue.next(Instant::now()).batch.into_iter().for_each(&mut serve),
            }
        }
        drain(&mut queue).into_iter().for_each(&mut serve);
        prop_assert_eq!(served, asked);
        prop_assert_eq!((queue.queued_tokens(), queue.queued_texts(), queue.waiting.is_empty()), (0, 0, true));
    }
}
