//! The texts that wait, by request and by content: equal texts find each other wherever they stand.

use super::{Lane, ModelId, RequestId};
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// A text that may be wanted more than once.
pub trait Twin {
    /// Equal for twins, and hardly ever for others.
    fn digest(&self) -> u64;
    /// Whether one result serves both.
    fn is_twin(&self, other: &Self) -> bool;
    /// Takes in a twin: what is computed goes to both.
    fn join(&mut self, twin: Self);
}

/// Where a text stands: by what decides its vector, then by lane, request and place there.
type Place = (ModelId, u64, Lane, RequestId, usize);

/// A request with what is left of its texts.
pub(super) struct Request<J> {
    pub(super) model: ModelId,
    pub(super) weight: u32,
    pub(super) lane: Lane,
    pub(super) deadline: Instant,
    /// Texts with their tokens, in order; those that were taken have left a gap.
    jobs: Vec<Option<(J, usize)>>,
    /// All before it are gaps.
    first: usize,
    /// How many are not gaps.
    left: usize,
}

impl<J> Request<J> {
    /// A request none of whose texts has been taken; it has at least one.
    pub(super) fn new(model: ModelId, weight: u32, lane: Lane, deadline: Instant, jobs: Vec<(J, usize)>) -> Self {
        let left = jobs.len();
        Self { model, weight, lane, deadline, jobs: jobs.into_iter().map(Some).collect(), first: 0, left }
    }

    /// What still waits of it, in order.
    pub(super) fn into_left(self) -> Vec<(J, usize)> {
        self.jobs.into_iter().flatten().collect()
    }

    /// The tokens of its first text that waits.
    pub(super) fn first_tokens(&self) -> Option<usize> {
        self.jobs.get(self.first)?.as_ref().map(|(_, tokens)| *tokens)
    }
}

impl<J: Twin> Request<J> {
    /// Where its waiting texts stand.
    fn places(&self, id: RequestId) -> impl Iterator<Item = Place> {
        let jobs = self.jobs.iter().enumerate();
        jobs.filter_map(move |(at, job)| job.as_ref().map(|(job, _)| (self.model, job.digest(), self.lane, id, at)))
    }
}

/// What a text left behind when it was taken out.
pub(super) struct Taken<J> {
    pub(super) job: J,
    pub(super) tokens: usize,
    /// Whether it was its request's last one.
    pub(super) last: bool,
}

/// All waiting requests.
pub(super) struct Waiting<J> {
    requests: HashMap<RequestId, Request<J>>,
    /// One for each waiting text, so that twins stand side by side.
    places: BTreeSet<Place>,
}

impl<J> Default for Waiting<J> {
    fn default() -> Self {
        Self { requests: HashMap::new(), places: BTreeSet::new() }
    }
}

impl<J: Twin> Waiting<J> {
    pub(super) fn get(&self, id: RequestId) -> Option<&Request<J>> {
        self.requests.get(&id)
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.places.is_empty()
    }

    /// Takes in a request.
    pub(super) fn insert(&mut self, id: RequestId, request: Request<J>) {
        self.places.extend(request.places(id));
        self.requests.insert(id, request);
    }

    /// Takes a request out, with the texts that still wait.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Request<J>> {
        let request = self.requests.remove(&id)?;
        for place in request.places(id) {
            self.places.remove(&place);
        }
        Some(request)
    }

    /// Takes out the first waiting text of a request.
    pub(super) fn take_first(&mut self, id: RequestId) -> Option<Taken<J>> {
        let at = self.requests.get(&id)?.first;
        self.take(id, at)
    }

    /// Takes out a text that waits in this lane and wants what `job` wants.
    pub(super) fn take_twin(&mut self, lane: Lane, model: ModelId, job: &J) -> Option<Taken<J>> {
        let from = |id, at| (model, job.digest(), lane, id, at);
        let mut alike = self.places.range(from(RequestId::MIN, usize::MIN)..=from(RequestId::MAX, usize::MAX));
        let is_twin = |&&(.., id, at): &&Place| {
            let other = self.requests.get(&id).and_then(|request| request.jobs.get(at)?.as_ref());
            other.is_some_and(|(other, _)| job.is_twin(other))
        };
        let &(.., id, at) = alike.find(is_twin)?;
        self.take(id, at)
    }

    fn take(&mut self, id: RequestId, at: usize) -> Option<Taken<J>> {
        let request = self.requests.get_mut(&id)?;
        let (job, tokens) = request.jobs.get_mut(at)?.take()?;
        request.left -= 1;
        while matches!(request.jobs.get(request.first), Some(None)) {
            request.first += 1;
        }
        let (model, lane, last) = (request.model, request.lane, request.left == 0);
        if last {
            self.requests.remove(&id);
        }
        self.places.remove(&(model, job.digest(), lane, id, at));
        Some(Taken { job, tokens, last })
    }
}
