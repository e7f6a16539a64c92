//! Levels, tokens, what is taken back, and exactness under many threads.

use super::*;
use crate::service::access::Origin;
use std::sync::atomic::{AtomicUsize, Ordering};

fn key(id: &str, user: &str, tenant: &str) -> Key {
    Key {
        id: id.to_owned(),
        name: id.to_owned(),
        user: user.to_owned(),
        tenant: tenant.to_owned(),
        partner: None,
        models: None,
        scopes: Vec::new(),
        expires_at: None,
        sha256: [0; 32],
        requests_per_minute: None,
        tokens_per_minute: None,
        weight: 1,
        origin: Origin::File,
    }
}

fn requests(n: u32) -> Quota {
    Quota { requests_per_minute: Some(n), tokens_per_minute: None }
}

fn enters(limiter: &Arc<Limiter>, key: &Key, now_ms: u64) -> Result<u64, u32> {
    limiter.enter_at(Some(key), now_ms).map(|pass| pass.unwrap().standing().unwrap().remaining).map_err(|exceeded| exceeded.retry_after_s)
}

#[test]
fn nobody_is_limited_unless_it_is_said() {
    let limiter = Limiter::new(Options::default());
    assert!(limiter.enter(None).unwrap().is_none() && limiter.enter(Some(&key("k", "u", "t"))).unwrap().is_none());
    let own = Key { requests_per_minute: Some(1), ..key("k", "u", "t") };
    assert_eq!((enters(&limiter, &own, 0), enters(&limiter, &own, 0)), (Ok(0), Err(61)));
}

#[test]
fn the_tightest_level_decides_and_a_refusal_counts_nowhere() {
    let limiter = Limiter::new(Options { key: requests(3), user: requests(4), tenant: requests(100), ..Options::default() });
    let (first, second, other) = (key("k1", "u", "t"), key("k2", "u", "t"), key("k3", "u", "t2"));
    assert_eq!([0; 3].map(|_| enters(&limiter, &first, 0)), [Ok(2), Ok(1), Ok(0)]);
    assert_eq!([0; 5].map(|_| enters(&limiter, &first, 1000)), [Err(60); 5]);
    assert_eq!((enters(&limiter, &second, 1000), enters(&limiter, &second, 1000)), (Ok(0), Err(60)), "one is left to the user");
    assert_eq!(enters(&limiter, &other, 1000), Ok(2), "a user of the same name in another tenant");
    assert_eq!(enters(&limiter, &first, 60_100), Ok(2), "the three have left, the hammering did not count");
}

#[test]
fn the_presets_headers_tell_of_the_tightest_level() {
    let limiter = Limiter::new(Options::scaigrid());
    let standing = limiter.enter(Some(&key("k", "u", "t"))).unwrap().unwrap().standing().unwrap();
    assert_eq!((standing.limit, standing.remaining), (60, 59));
    assert!((60..=62).contains(&(standing.reset_s - unix_s())));
}

#[test]
fn tokens_count_when_they_are_known_and_all_or_none() {
    let quota = Quota { requests_per_minute: None, tokens_per_minute: Some(10) };
    let limiter = Limiter::new(Options { key: quota, tenant: Quota { tokens_per_minute: Some(12), ..quota }, ..Options::default() });
    let (first, second) = (key("k1", "u", "t"), key("k2", "u", "t"));
    let pass = |key: &Key| limiter.enter_at(Some(key), 0).unwrap().unwrap();
    assert!(pass(&first).tokens_at(9, 0).is_ok());
    assert_eq!(pass(&first).tokens_at(2, 0), Err(Fault::RateLimited { retry_after_s: 61 }));
    let refused = pass(&second);
    assert_eq!(refused.tokens_at(4, 0), Err(Fault::RateLimited { retry_after_s: 61 }), "the tenant's");
    assert_eq!(refused.standing().map(|standing| (standing.limit, standing.remaining)), Some((12, 3)));
    assert!(pass(&second).tokens_at(3, 0).is_ok() && pass(&first).tokens_at(1, 0).is_err());
    assert!(matches!(pass(&second).tokens_at(11, 0), Err(Fault::Validation(_))), "waiting would not help");
}

#[test]
fn what_was_turned_away_later_is_taken_back_once() {
    let limiter = Limiter::new(Options { key: requests(2), ..Options::default() });
    let key = key("k", "u", "t");
    let pass = limiter.enter_at(Some(&key), 0).unwrap().unwrap();
    assert_eq!(enters(&limiter, &key, 0), Ok(0));
    pass.take_back();
    pass.take_back();
    assert_eq!((enters(&limiter, &key, 0), enters(&limiter, &key, 0)), (Ok(0), Err(61)));
}

#[test]
fn many_at_once_never_get_more_than_the_limit() {
    let limiter = Limiter::new(Options { tenant: requests(1000), ..Options::default() });
    let entered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (limiter, entered, key) = (&limiter, &entered, key(&format!("k{thread}"), "u", "t"));
            scope.spawn(move || {
                for _ in 0..50 {
                    entered.fetch_add(usize::from(limiter.enter_at(Some(&key), 0).is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(entered.into_inner(), 1000);
}

#[test]
fn callers_that_are_gone_are_forgotten() {
    let limiter = Limiter::new(Options { key: requests(2), ..Options::default() });
    for n in 0..3000 {
        enters(&limiter, &key(&format!("k{n}"), "u", "t"), n * 1000).unwrap();
    }
    assert!(limiter.lock().windows.len() < 1200, "{}", limiter.lock().windows.len());
}
