//! Rate limits: requests and tokens per minute of a key, its user, its tenant and its partner. All levels at once, or nothing is counted.

use super::access::Key;
use super::window::{WINDOW_MS, Window};
use crate::store::Store;
use crate::wire::Fault;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What one key, user, tenant or partner may use in a minute; `None` = any amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
}

/// The limits of the four levels. A key's own limits come before those of the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub key: Quota,
    pub user: Quota,
    pub tenant: Quota,
    pub partner: Quota,
    /// Of one address, for calls without a key that is in force.
    pub address: Quota,
}

impl Options {
    /// The limits of the hosted service.
    pub fn scaigrid() -> Self {
        let requests = |n| Quota { requests_per_minute: Some(n), tokens_per_minute: None };
        Self { key: requests(60), user: requests(120), tenant: requests(1000), partner: requests(5000), address: requests(60) }
    }
}

/// Where a caller stands with the limit that is nearest: what the rate-limit headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub limit: u64,
    pub remaining: u64,
    /// Unix time in seconds at which there is more room.
    pub reset_s: u64,
}

/// A request over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    pub standing: Standing,
    pub retry_after_s: u32,
}

/// User, tenant and partner of those who have none: a server of one tenant has one of each.
const DEFAULT: &str = "default";
/// How long a request waits for the shared store, and how long the store is left alone once it has failed.
const SHARED_PATIENCE: Duration = Duration::from_secs(15);
const SHARED_PAUSE_MS: u64 = 5_000;
/// The levels that keys have; addresses come behind them.
const LEVELS: u8 = 4;
/// Subjects are looked through for ones that no longer count whenever their number has grown by this many.
const SWEEP: usize = 1024;

/// Counts for all callers of this server, or of all servers of a shared store.
pub struct Limiter {
    options: Options,
    /// Where several servers count together; while it does not answer, each counts for itself.
    shared: Option<Store>,
    /// Not before this time is it asked again once it has failed; as `now_ms`.
    shared_from_ms: AtomicU64,
    started: Instant,
    subjects: Mutex<Subjects>,
}

#[derive(Default)]
struct Subjects {
    windows: HashMap<Subject, [Window; 2]>,
    sweep_at: usize,
}

/// Whose use is counted: the level and its id.
type Subject = (u8, String);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Requests,
    Tokens,
}

const UNITS: [Unit; 2] = [Unit::Requests, Unit::Tokens];

/// One limit that a caller is under.
#[derive(Clone)]
struct Limit {
    subject: Subject,
    quota: Quota,
}

impl Limit {
    /// What its count is called in a shared store.
    fn name(&self, unit: Unit) -> String {
        // PostgreSQL takes no NUL in a text.
        format!("{}/{}/{}", unit as u8, self.subject.0, self.subject.1.replace('\0', "\u{1f}"))
    }

    fn of(&self, unit: Unit) -> Option<u64> {
        let limit = match unit {
            Unit::Requests => self.quota.requests_per_minute,
            Unit::Tokens => self.quota.tokens_per_minute,
        };
        limit.map(u64::from)
    }
}

impl Limiter {
    /// A limiter; with nothing in `options` only keys that have limits of their own are limited.
    pub fn new(options: Options, shared: Option<Store>) -> Arc<Self> {
        Arc::new(Self { options, shared, shared_from_ms: AtomicU64::new(0), started: Instant::now(), subjects: Mutex::default() })
    }

    /// Counts a request of `key` if every level has room; `None` if it is under no limit at all.
    ///
    /// # Errors
    /// [`Exceeded`], for the level that takes longest; then nothing was counted.
    pub async fn enter(self: &Arc<Self>, key: Option<&Key>, address: Option<IpAddr>) -> Result<Option<Pass>, Exceeded> {
        let mut limits = self.limits(key);
        limits.extend(address.filter(|_| key.is_none()).and_then(|address| self.of_address(address)));
        let limits: Arc<[Limit]> = limits.into();
        if limits.is_empty() {
            return Ok(None);
        }
        let counted = limits.clone();
        let (step, standing) = self.count(&limits, move |subjects, now_ms| subjects.enter(&counted, now_ms)).await?;
        Ok(Some(Pass { limiter: self.clone(), limits, state: Mutex::new(PassState { step: Some(step), tokens: None, standing, exceeded: false }) }))
    }

    /// Counts a call that is refused for want of a key. Never in the shared store: who has no key must not make work for all servers.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn enter_stranger(&self, address: Option<IpAddr>) -> Result<(), Exceeded> {
        let Some(limit) = address.and_then(|address| self.of_address(address)) else { return Ok(()) };
        let now_ms = self.now_ms();
        self.lock().take(&[limit], Unit::Requests, 1, now_ms).map(|_| ())
    }

    fn of_address(&self, address: IpAddr) -> Option<Limit> {
        let subject = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            // Whoever has one IPv6 address has a whole network of them.
            IpAddr::V6(address) => format!("{:x}/64", address.to_bits() >> 64),
        };
        let quota = self.options.address;
        (quota != Quota::default()).then_some(Limit { subject: (LEVELS, subject), quota })
    }

    /// Lets `act` count, at the time it is told: in the shared store, else here.
    async fn count<T>(&self, limits: &[Limit], act: impl Fn(&mut Subjects, u64) -> T + Send + Sync) -> T {
        if let Some(store) = self.shared.as_ref().filter(|_| self.now_ms() >= self.shared_from_ms.load(Relaxed)) {
            let names: Vec<String> = limits.iter().flat_map(|limit| UNITS.map(|unit| limit.name(unit))).collect();
            let counted = store.change_counts(&names, |now_ms, counts| {
                let mut subjects = Subjects::read(limits, counts);
                let counted = act(&mut subjects, now_ms);
                subjects.write(limits, counts);
                counted
            });
            let error = match tokio::time::timeout(SHARED_PATIENCE, counted).await {
                Ok(Ok(counted)) => return counted,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            // Requests must not wait for a store that is away, each for itself.
            self.shared_from_ms.store(self.now_ms() + SHARED_PAUSE_MS, Relaxed);
            tracing::error!(error, "the shared store fails; for some seconds rate limits are counted by this server alone");
        }
        act(&mut self.lock(), self.now_ms())
    }

    /// Every limit that the key is under.
    fn limits(&self, key: Option<&Key>) -> Vec<Limit> {
        let or_default = |id: Option<&String>| id.map_or_else(|| DEFAULT.to_owned(), String::clone);
        let own = Quota {
            requests_per_minute: key.and_then(|key| key.requests_per_minute).or(self.options.key.requests_per_minute),
            tokens_per_minute: key.and_then(|key| key.tokens_per_minute).or(self.options.key.tokens_per_minute),
        };
        let levels = [
            (own, or_default(key.map(|key| &key.id))),
            (self.options.user, or_default(key.map(|key| &key.user))),
            (self.options.tenant, or_default(key.map(|key| &key.tenant))),
            (self.options.partner, or_default(key.and_then(|key| key.partner.as_ref()))),
        ];
        // Users of two tenants may have the same name, and so may tenants of two partners.
        let scope = |level: usize| levels[level..].iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join("\0");
        let limited = levels.iter().enumerate().filter(|(_, (quota, _))| *quota != Quota::default());
        limited.map(|(level, (quota, _))| Limit { subject: (level as u8, scope(level)), quota: *quota }).collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Held for moments. Its holders do not panic half-way; poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, Subjects> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subjects {
    /// The counts of these limits, as `Limiter::count` names them; what cannot be read counts as nothing.
    fn read(limits: &[Limit], counts: &[String]) -> Self {
        let mut subjects = Self::default();
        for (limit, pair) in limits.iter().zip(counts.chunks_exact(UNITS.len())) {
            for (unit, text) in UNITS.into_iter().zip(pair) {
                *subjects.window(limit, unit) = Window::read(text).unwrap_or_default();
            }
        }
        subjects
    }

    /// The reverse of `read`.
    fn write(&mut self, limits: &[Limit], counts: &mut [String]) {
        for (limit, pair) in limits.iter().zip(counts.chunks_exact_mut(UNITS.len())) {
            for (unit, text) in UNITS.into_iter().zip(pair) {
                *text = self.window(limit, unit).write();
            }
        }
    }

    /// Counts a request; gives its step, and where the caller stands.
    fn enter(&mut self, limits: &[Limit], now_ms: u64) -> Result<(u64, Option<Standing>), Exceeded> {
        let step = self.take(limits, Unit::Requests, 1, now_ms)?;
        Ok((step, self.told(limits, now_ms)))
    }

    /// What the headers tell: of requests, or of tokens where no level limits requests.
    fn told(&mut self, limits: &[Limit], now_ms: u64) -> Option<Standing> {
        self.standing(limits, Unit::Requests, now_ms).or_else(|| self.standing(limits, Unit::Tokens, now_ms))
    }

    /// Counts `amount` at every level, or at none.
    fn take(&mut self, limits: &[Limit], unit: Unit, amount: u64, now_ms: u64) -> Result<u64, Exceeded> {
        let mut worst: Option<(u64, &Limit)> = None;
        for limit in limits {
            let Some(most) = limit.of(unit) else { continue };
            let wait = self.window(limit, unit).wait_ms(now_ms, amount, most);
            if wait > worst.map_or(0, |(wait, _)| wait) {
                worst = Some((wait, limit));
            }
        }
        if let Some((wait_ms, limit)) = worst {
            let most = limit.of(unit).unwrap_or(0);
            let retry_after_s = u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX);
            let remaining = most.saturating_sub(self.window(limit, unit).used(now_ms));
            // What was asked for did not fit, so to the caller nothing is left of requests; of tokens a smaller request may still fit.
            let remaining = if unit == Unit::Requests { 0 } else { remaining };
            return Err(Exceeded { standing: Standing { limit: most, remaining, reset_s: unix_s() + u64::from(retry_after_s) }, retry_after_s });
        }
        let mut step = 0;
        for limit in limits.iter().filter(|limit| limit.of(unit).is_some()) {
            step = self.window(limit, unit).add(now_ms, amount);
        }
        self.sweep(now_ms);
        Ok(step)
    }

    /// The standing at the level with least room left.
    fn standing(&mut self, limits: &[Limit], unit: Unit, now_ms: u64) -> Option<Standing> {
        let of = |limit: &Limit| {
            let most = limit.of(unit)?;
            let window = self.window(limit, unit);
            let remaining = most.saturating_sub(window.used(now_ms));
            Some(Standing { limit: most, remaining, reset_s: unix_s() + window.oldest_leaves_ms(now_ms).div_ceil(1000) })
        };
        limits.iter().filter_map(of).min_by_key(|standing| standing.remaining)
    }

    fn window(&mut self, limit: &Limit, unit: Unit) -> &mut Window {
        &mut self.windows.entry(limit.subject.clone()).or_default()[unit as usize]
    }

    /// Forgets those of whom nothing counts any more.
    fn sweep(&mut self, now_ms: u64) {
        if self.windows.len() > self.sweep_at.max(SWEEP) {
            self.windows.retain(|_, windows| windows.iter_mut().any(|window| window.used(now_ms) > 0));
            self.sweep_at = self.windows.len() + SWEEP;
        }
    }
}

/// A request that was let in.
pub struct Pass {
    limiter: Arc<Limiter>,
    limits: Arc<[Limit]>,
    state: Mutex<PassState>,
}

struct PassState {
    /// Where the request was counted; `None` once that was taken back.
    step: Option<u64>,
    /// Where its tokens were counted, and how many.
    tokens: Option<(u64, u64)>,
    standing: Option<Standing>,
    /// True if `standing` is that of the limit which turned it away.
    exceeded: bool,
}

impl Pass {
    /// Counts the request's tokens, once they are known and before they are computed.
    ///
    /// # Errors
    /// `RateLimited`; `Validation` if the request alone is over the limit of a minute, so that waiting would not help.
    pub async fn tokens(&self, tokens: usize) -> Result<(), Fault> {
        let tokens = tokens as u64;
        if let Some(most) = self.limits.iter().filter_map(|limit| limit.of(Unit::Tokens)).min().filter(|most| *most < tokens) {
            let message = format!("has {tokens} tokens, more than the {most} that may be embedded in a minute; send fewer texts per request");
            return Err(Fault::field("input", message));
        }
        if self.limits.iter().all(|limit| limit.of(Unit::Tokens).is_none()) {
            return Ok(());
        }
        let limits = self.limits.clone();
        let take = move |subjects: &mut Subjects, now_ms| {
            let step = subjects.take(&limits, Unit::Tokens, tokens, now_ms)?;
            Ok::<_, Exceeded>((step, subjects.told(&limits, now_ms)))
        };
        let taken = self.limiter.count(&self.limits, take).await;
        let mut state = self.lock();
        match taken {
            Ok((step, standing)) => (state.tokens, state.standing) = (Some((step, tokens)), standing),
            Err(exceeded) => {
                (state.standing, state.exceeded) = (Some(exceeded.standing), true);
                return Err(Fault::RateLimited { retry_after_s: exceeded.retry_after_s });
            }
        }
        Ok(())
    }

    /// Takes the request back: it was turned away after all, and what is turned away does not count.
    pub async fn take_back(&self) {
        let (request, tokens) = {
            let mut state = self.lock();
            (state.step.take().map(|step| (step, 1)), state.tokens.take())
        };
        if request.is_none() {
            return;
        }
        let limits = self.limits.clone();
        let take_back = move |subjects: &mut Subjects, now_ms| {
            for (unit, counted) in UNITS.into_iter().zip([request, tokens]) {
                let Some((step, amount)) = counted else { continue };
                for limit in limits.iter().filter(|limit| limit.of(unit).is_some()) {
                    subjects.window(limit, unit).take_back(step, amount);
                }
            }
            subjects.told(&limits, now_ms)
        };
        let standing = self.limiter.count(&self.limits, take_back).await;
        let mut state = self.lock();
        if !state.exceeded {
            state.standing = standing;
        }
    }

    /// What the headers say; `None` = nothing.
    pub fn standing(&self) -> Option<Standing> {
        self.lock().standing
    }

    fn lock(&self) -> MutexGuard<'_, PassState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

const _: () = assert!(WINDOW_MS == 60_000, "limits are named per minute");

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
