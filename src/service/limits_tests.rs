//! Levels, tokens, what is taken back, and exactness under many threads.

use super::*;
use crate::service::access::Origin;
use crate::store::Place;
use crate::store::tests::run;
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

fn local(options: Options) -> Arc<Limiter> {
    Limiter::new(options, None)
}

fn enters(limiter: &Arc<Limiter>, key: &Key, now_ms: u64) -> Result<u64, u32> {
    let entered = limiter.lock().enter(&limiter.limits(Some(key)), now_ms);
    entered.map(|(_, standing)| standing.unwrap().remaining).map_err(|exceeded| exceeded.retry_after_s)
}

/// A pass at whatever time it is now.
fn pass(limiter: &Arc<Limiter>, key: &Key) -> Pass {
    run(limiter.enter(Some(key), None)).unwrap().unwrap()
}

#[test]
fn an_ipv6_network_is_one_address() {
    let limiter = Limiter::new(Options { address: requests(1), ..Options::default() }, None);
    let ask = |address: &str| limiter.enter_stranger(Some(address.parse().unwrap())).is_ok();
    assert!(ask("2001:db8::1") && !ask("2001:db8::2") && ask("2001:db8:0:1::1"));
    assert!(ask("192.0.2.1") && ask("192.0.2.2") && !ask("::ffff:192.0.2.1"));
    assert!(limiter.enter_stranger(None).is_ok());
}

#[test]
fn nobody_is_limited_unless_it_is_said() {
    let limiter = local(Options::default());
    assert!(run(limiter.enter(None, None)).unwrap().is_none() && run(limiter.enter(Some(&key("k", "u", "t")), None)).unwrap().is_none());
    let own = Key { requests_per_minute: Some(1), ..key("k", "u", "t") };
    assert_eq!((enters(&limiter, &own, 0), enters(&limiter, &own, 0)), (Ok(0), Err(61)));
}

#[test]
fn the_tightest_level_decides_and_a_refusal_counts_nowhere() {
    let limiter = local(Options { key: requests(3), user: requests(4), tenant: requests(100), ..Options::default() });
    let (first, second, other) = (key("k1", "u", "t"), key("k2", "u", "t"), key("k3", "u", "t2"));
    assert_eq!([0; 3].map(|_| enters(&limiter, &first, 0)), [Ok(2), Ok(1), Ok(0)]);
    assert_eq!([0; 5].map(|_| enters(&limiter, &first, 1000)), [Err(60); 5]);
    assert_eq!((enters(&limiter, &second, 1000), enters(&limiter, &second, 1000)), (Ok(0), Err(60)), "one is left to the user");
    assert_eq!(enters(&limiter, &other, 1000), Ok(2), "a user of the same name in another tenant");
    assert_eq!(enters(&limiter, &first, 60_100), Ok(2), "the three have left, the hammering did not count");
}

#[test]
fn the_presets_headers_tell_of_the_tightest_level() {
    let limiter = local(Options::scaigrid());
    let standing = pass(&limiter, &key("k", "u", "t")).standing().unwrap();
    assert_eq!((standing.limit, standing.remaining), (60, 59));
    assert!((60..=62).contains(&(standing.reset_s - unix_s())));
}

#[test]
fn tokens_count_when_they_are_known_and_all_or_none() {
    let quota = Quota { requests_per_minute: None, tokens_per_minute: Some(10) };
    let limiter = local(Options { key: quota, tenant: Quota { tokens_per_minute: Some(12), ..quota }, ..Options::default() });
    let (first, second) = (key("k1", "u", "t"), key("k2", "u", "t"));
    let tokens = |key: &Key, tokens: usize| {
        let pass = pass(&limiter, key);
        let taken = run(pass.tokens(tokens)).map_err(|fault| fault.code());
        (taken, pass.standing().map(|standing| (standing.limit, standing.remaining)))
    };
    assert_eq!(tokens(&first, 9), (Ok(()), Some((10, 1))), "what is left behind this request");
    assert_eq!(tokens(&first, 2), (Err("RATE_LIMITED"), Some((10, 1))));
    assert_eq!(tokens(&second, 4), (Err("RATE_LIMITED"), Some((12, 3))), "the tenant's");
    assert_eq!((tokens(&second, 3).0, tokens(&first, 1).0), (Ok(()), Err("RATE_LIMITED")));
    assert_eq!(tokens(&second, 11).0, Err("VALIDATION_ERROR"), "waiting would not help");
}

#[test]
fn what_was_turned_away_later_is_taken_back_once() {
    let limiter = local(Options { key: requests(2), ..Options::default() });
    let key = key("k", "u", "t");
    let told = pass(&limiter, &key);
    assert_eq!(told.standing().unwrap().remaining, 1);
    run(told.take_back());
    assert_eq!(told.standing().unwrap().remaining, 2, "what does not count is not missing");
    let pass = pass(&limiter, &key);
    assert_eq!(enters(&limiter, &key, 0), Ok(0));
    run(pass.take_back());
    run(pass.take_back());
    assert_eq!((enters(&limiter, &key, 0), enters(&limiter, &key, 0)), (Ok(0), Err(61)));
}

#[test]
fn many_at_once_never_get_more_than_the_limit() {
    let limiter = local(Options { tenant: requests(1000), ..Options::default() });
    let entered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (limiter, entered, key) = (&limiter, &entered, key(&format!("k{thread}"), "u", "t"));
            scope.spawn(move || {
                for _ in 0..50 {
                    entered.fetch_add(usize::from(enters(limiter, &key, 0).is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(entered.into_inner(), 1000);
}

#[test]
fn callers_that_are_gone_are_forgotten() {
    let limiter = local(Options { key: requests(2), ..Options::default() });
    for n in 0..3000 {
        enters(&limiter, &key(&format!("k{n}"), "u", "t"), n * 1000).unwrap();
    }
    assert!(limiter.lock().windows.len() < 1200, "{}", limiter.lock().windows.len());
}

#[test]
fn servers_of_one_store_count_together() {
    run(async {
        let store = Store::open(&Place::Memory).await.unwrap();
        let quota = Quota { requests_per_minute: Some(3), tokens_per_minute: Some(10) };
        let servers = [0; 2].map(|_| Limiter::new(Options { user: quota, ..Options::default() }, Some(store.clone())));
        let key = key("k", "u", "t");
        let first = servers[0].enter(Some(&key), None).await.unwrap().unwrap();
        let second = servers[1].enter(Some(&key), None).await.unwrap().unwrap();
        assert_eq!((first.standing().unwrap().remaining, second.standing().unwrap().remaining), (2, 1));
        assert!(first.tokens(9).await.is_ok() && second.tokens(2).await.is_err());
        second.take_back().await;
        assert!(servers[1].enter(Some(&key), None).await.is_ok() && servers[0].enter(Some(&key), None).await.is_ok());
        let exceeded = servers[0].enter(Some(&key), None).await.map(|_| ()).unwrap_err();
        assert!((1..=61).contains(&exceeded.retry_after_s));
        store.remove_stale_counts().await.unwrap();
        assert!(servers[1].enter(Some(&key), None).await.is_err(), "fresh counts stay");
        store.close().await;
        assert!(servers[1].enter(Some(&key), None).await.is_ok(), "without the store each counts for itself");
    });
}
