//! Obtaining models from a hub that redirects, breaks off, refuses and lies.

use super::fakehub::{Behaviour, COMMIT, FakeHub};
use super::fakemodel::{Files, Machine, WEIGHTS_BYTES, assert_holds, card, files, in_wheel, sha256};
use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use vecmill::hub::{HubError, Options, Outcome, Silent, What, obtain, parse};

/// The error of the first source in a report that every source failed.
fn first_failure(error: HubError) -> HubError {
    let HubError::Exhausted { attempts, .. } = error else { panic!("not exhausted: {error}") };
    attempts
        .0
        .into_iter()
        .find_map(|attempt| match attempt.outcome {
            Outcome::Failed(error) => Some(*error),
            Outcome::Absent(_) => None,
        })
        .expect("a source failed")
}

fn offline(options: &Options) -> Options {
    Options { offline: true, ..options.clone() }
}

#[test]
fn a_card_is_fetched_at_its_revision_through_the_redirect() {
    let (machine, model) = (Machine::new(), files(1));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { token: Some("secret".into()), ..Behaviour::default() });
    let options = Options { hf_token: Some("secret".into()), ..machine.options(&hub.endpoint) };
    let what = card("m", Some(COMMIT), &model, &[]);
    let got = obtain(&what, &options, &Silent).unwrap();
    assert_eq!((got.slug.as_str(), &got.root), ("owner/m", &machine.cached("m")));
    assert_holds(&got.root, &model);
    let seen = hub.seen();
    assert!(seen.iter().filter(|seen| !seen.cdn).all(|seen| seen.path.starts_with(&format!("/owner/m/resolve/{COMMIT}/"))), "{seen:?}");
    assert_eq!(hub.weights_asked_from(), [0]);
    assert!(seen.iter().all(|seen| seen.token.is_some() != seen.cdn), "the token goes to the hub and nowhere else: {seen:?}");

    // A warm start asks nobody, and leaves nothing behind but the model.
    assert_holds(&obtain(&what, &offline(&options), &Silent).unwrap().root, &model);
    assert_eq!(hub.seen().len(), seen.len());
    assert!(!machine.dir.path().join("cache/partial/m").exists());
}

#[test]
fn a_repo_without_a_card_gives_only_what_the_model_needs() {
    let (machine, model) = (Machine::new(), files(2));
    let mut repo = model.clone();
    for extra in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"] {
        repo.insert(extra.to_owned(), b"not needed".to_vec());
    }
    for bare_listing in [false, true] {
        let name = if bare_listing { "owner/bare" } else { "owner/full" };
        let hub = FakeHub::new(&[(name, &repo)], Behaviour { bare_listing, ..Behaviour::default() });
        let options = machine.options(&hub.endpoint);
        let what = parse(name).unwrap();
        let got = obtain(&what, &options, &Silent).unwrap();
        assert_eq!(got.root, machine.cached(&name.replace('/', "--")));
        assert_holds(&got.root, &model);
        assert!(["README.md", "pytorch_model.bin", "onnx"].iter().all(|extra| !got.root.join(extra).exists()));
        let of_files = hub.seen().into_iter().filter(|seen| seen.path.contains("/resolve/"));
        assert!(of_files.clone().count() >= model.len() && of_files.clone().all(|seen| seen.path.contains(COMMIT)), "one commit for all files");

        // What came first is what is served later: a changed file is noticed without any card.
        obtain(&what, &offline(&options), &Silent).unwrap();
        let weights = got.root.join("model.safetensors");
        let mut bytes = model["model.safetensors"].clone();
        bytes[7] ^= 1;
        std::fs::write(&weights, bytes).unwrap();
        let error = obtain(&what, &offline(&options), &Silent).unwrap_err().to_string();
        assert!(error.contains("wrong sha256") && error.contains("model.safetensors"), "{error}");
        assert_holds(&obtain(&what, &options, &Silent).unwrap().root, &model);
    }
}

#[test]
fn a_repo_of_pickles_is_refused_before_a_byte_of_them_is_fetched() {
    let machine = Machine::new();
    let mut repo = files(3);
    repo.remove("model.safetensors");
    repo.insert("pytorch_model.bin".to_owned(), b"\x80\x04".to_vec());
    let hub = FakeHub::new(&[("owner/old", &repo)], Behaviour::default());
    let error = obtain(&parse("owner/old").unwrap(), &machine.options(&hub.endpoint), &Silent).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("pytorch_model.bin") && text.contains("run code") && text.contains("safetensors"), "{text}");
    assert!(matches!(first_failure(error), HubError::PickleOnly { .. }));
    assert!(hub.seen().iter().all(|seen| !seen.path.ends_with(".bin")));
}

#[test]
fn a_broken_connection_is_resumed_where_it_stopped() {
    let (machine, model) = (Machine::new(), files(4));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { cuts: [100_000, 50_000, 0].into(), ..Behaviour::default() });
    let got = obtain(&card("m", None, &model, &[]), &machine.options(&hub.endpoint), &Silent).unwrap();
    assert_holds(&got.root, &model);
    assert_eq!(hub.weights_asked_from(), [0, 100_000, 150_000, 150_000]);
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_was_interrupted() {
    let (machine, model) = (Machine::new(), files(5));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { cuts: [100_000].into(), unavailable_after_cuts: true, ..Behaviour::default() });
    let (what, options) = (card("m", None, &model, &[]), machine.options(&hub.endpoint));
    let error = obtain(&what, &options, &Silent).unwrap_err().to_string();
    assert!(error.contains("503"), "{error}");
    assert!(!machine.cached("m").exists(), "a partial model is never in place");
    let before = hub.seen().len();

    hub.behave(Behaviour::default());
    assert_holds(&obtain(&what, &options, &Silent).unwrap().root, &model);
    let after = &hub.seen()[before..];
    assert!(after.iter().all(|seen| !seen.path.ends_with("config.json")), "what was verified is not fetched again: {after:?}");
    assert_eq!(hub.weights_asked_from().last(), Some(&100_000));
}

#[test]
fn what_cannot_be_resumed_is_started_again() {
    let model = files(6);
    let what = card("m", None, &model, &[]);
    let weights = &model["model.safetensors"];
    // A server without ranges; a leftover of something else; a leftover that is complete; one that is too long.
    let leftovers = [(true, weights[..1000].to_vec()), (false, vec![0; 1000]), (false, weights.clone()), (false, vec![0; 400_000])];
    for (no_ranges, leftover) in leftovers {
        let machine = Machine::new();
        let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { no_ranges, ..Behaviour::default() });
        let parts = machine.dir.path().join("cache/partial/m/parts");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(parts.join("model.safetensors"), &leftover).unwrap();
        let got = obtain(&what, &machine.options(&hub.endpoint), &Silent).unwrap();
        assert_holds(&got.root, &model);
        if leftover.len() == WEIGHTS_BYTES {
            assert!(hub.weights_asked_from().is_empty(), "a complete part is only verified");
        }
    }
}

#[test]
fn a_closed_door_names_the_token() {
    let (machine, model) = (Machine::new(), files(7));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { token: Some("right".into()), ..Behaviour::default() });
    let what = parse("owner/m").unwrap();
    let with = |token: Option<&str>| Options { hf_token: token.map(str::to_owned), ..machine.options(&hub.endpoint) };
    let error = obtain(&what, &with(None), &Silent).unwrap_err();
    assert!(error.to_string().contains("401") && error.to_string().contains("Set HF_TOKEN"), "{error}");
    assert!(matches!(first_failure(error), HubError::Unauthorized { status: 401, token_sent: false, .. }));
    let error = obtain(&what, &with(Some("hf_other")), &Silent).unwrap_err();
    assert!(error.to_string().contains("the token in HF_TOKEN does not open it"), "{error}");
    assert!(!error.to_string().contains("hf_other"), "a token is never shown: {error}");
    assert_holds(&obtain(&what, &with(Some("right")), &Silent).unwrap().root, &model);
}

#[test]
fn a_wrong_hash_is_refused_and_named_and_nothing_of_it_is_kept() {
    let (machine, model) = (Machine::new(), files(8));
    let mut tampered = model.clone();
    tampered.get_mut("model.safetensors").unwrap()[12_345] ^= 1;
    let hub = FakeHub::new(&[("owner/m", &tampered)], Behaviour::default());
    let (what, options) = (card("m", None, &model, &[]), machine.options(&hub.endpoint));
    let error = obtain(&what, &options, &Silent).unwrap_err();
    let HubError::WrongHash { file, expected, got, .. } = first_failure(error) else { panic!("not a wrong hash") };
    assert_eq!((file.as_str(), expected, got), ("model.safetensors", sha256(&model["model.safetensors"]), sha256(&tampered["model.safetensors"])));
    assert!(!machine.cached("m").exists());
    for dir in ["parts", "ready"] {
        assert!(!machine.dir.path().join("cache/partial/m").join(dir).join("model.safetensors").exists(), "{dir}");
    }
}

#[test]
fn a_wrong_length_is_refused_without_reading_it_all() {
    let (machine, model) = (Machine::new(), files(9));
    let mut longer = model.clone();
    longer.get_mut("config.json").unwrap().extend_from_slice(b"    ");
    let hub = FakeHub::new(&[("owner/m", &longer)], Behaviour::default());
    let error = first_failure(obtain(&card("m", None, &model, &[]), &machine.options(&hub.endpoint), &Silent).unwrap_err());
    assert!(matches!(&error, HubError::WrongSize { file, .. } if file == "config.json"), "{error}");
}

#[test]
fn a_repo_that_is_not_there_is_named_and_the_next_source_is_asked() {
    let (machine, model) = (Machine::new(), files(10));
    let hub = FakeHub::new(&[], Behaviour::default());
    let options = machine.options(&hub.endpoint);
    let error = obtain(&parse("owner/none").unwrap(), &options, &Silent).unwrap_err();
    assert!(error.to_string().contains("has no such repo in owner/none"), "{error}");
    machine.offer_wheel("pack", &in_wheel(&model));
    assert_holds(&obtain(&card("m", None, &model, &["pack"]), &options, &Silent).unwrap().root, &model);
}

#[test]
fn a_hub_that_never_answers_gives_way_within_the_limit() {
    let (machine, model) = (Machine::new(), files(11));
    let hub = FakeHub::new(&[], Behaviour { silent: true, ..Behaviour::default() });
    machine.offer_wheel("pack", &in_wheel(&model));
    let mut options = machine.options(&hub.endpoint);
    options.limits.stall = Duration::from_secs(1);
    let start = Instant::now();
    assert_holds(&obtain(&card("m", None, &model, &["pack"]), &options, &Silent).unwrap().root, &model);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(hub.seen().len(), 1, "a server that says nothing is not asked twice");
    let error = obtain(&parse("owner/other").unwrap(), &options, &Silent).unwrap_err();
    assert!(matches!(first_failure(error), HubError::Stalled { .. }));
}

#[test]
fn a_connection_that_falls_silent_is_left_and_resumed() {
    let (machine, model) = (Machine::new(), files(14));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour { cuts: [100_000].into(), hold_when_cut: true, ..Behaviour::default() });
    let mut options = machine.options(&hub.endpoint);
    options.limits.stall = Duration::from_secs(1);
    assert_holds(&obtain(&card("m", None, &model, &[]), &options, &Silent).unwrap().root, &model);
    assert_eq!(hub.weights_asked_from(), [0, 100_000]);
}

#[test]
fn two_at_once_fetch_once_and_agree() {
    let (machine, model) = (Machine::new(), files(12));
    let hub = FakeHub::new(&[("owner/m", &model)], Behaviour::default());
    let (what, options) = (card("m", None, &model, &[]), machine.options(&hub.endpoint));
    let barrier = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_holds(&obtain(&what, &options, &Silent).unwrap().root, &model);
            });
        }
    });
    assert_eq!(hub.weights_asked_from(), [0]);
}

#[test]
fn an_https_endpoint_is_spoken_to_in_tls() {
    let machine = Machine::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let first_bytes = std::thread::spawn(move || {
        let mut bytes = [0; 2];
        listener.accept().unwrap().0.read_exact(&mut bytes).unwrap();
        bytes
    });
    let error = obtain(&What::Repo("owner/m".into()), &machine.options(&endpoint), &Silent).unwrap_err();
    assert!(matches!(error, HubError::Exhausted { .. }), "{error}");
    assert_eq!(first_bytes.join().unwrap(), [0x16, 0x03], "a TLS handshake record");
}

#[test]
fn names_in_a_listing_cannot_leave_the_cache() {
    let machine = Machine::new();
    let mut repo: Files = files(13);
    repo.insert("../../../escaped.json".to_owned(), b"{}".to_vec());
    repo.insert("modules.json".to_owned(), br#"[{"path": ""}, {"path": "../../.."}]"#.to_vec());
    let hub = FakeHub::new(&[("owner/evil", &repo)], Behaviour::default());
    let got = obtain(&parse("owner/evil").unwrap(), &machine.options(&hub.endpoint), &Silent).unwrap();
    assert!(got.root.join("config.json").is_file());
    assert!(hub.seen().iter().all(|seen| !seen.path.contains("escaped")), "not even asked for");
    assert!(!machine.dir.path().join("escaped.json").exists());
}
