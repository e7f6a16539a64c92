//! Bundles: one file that serves as its directory did, and of which no byte may be another.

use crate::fakemodel::{Machine, sha256};
use crate::golden::Certified;
use crate::server::{Server, command, vecmill};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vecmill::hub::bundle::{PublicKey, SecretKey, write};
use vecmill::hub::{HubError, ModelFiles, Options, Silent, obtain, parse, weights_digest};

/// A bundle of a small model, which stays beside it.
fn bundled(model: &Certified, key: Option<&SecretKey>) -> PathBuf {
    let path = model.dir.path().join("small.vecmill");
    write(&model.files(), &path, key, &Silent).unwrap();
    path
}

fn open(bundle: &Path, options: &Options) -> Result<ModelFiles, HubError> {
    obtain(&parse(bundle.to_str().unwrap())?, options, &Silent)
}

#[test]
fn a_bundle_unpacks_to_the_models_files_and_goldens() {
    let (model, machine) = (Certified::new("old-mean"), Machine::new());
    let options = Options { offline: true, ..machine.options("https://hub.invalid") };
    let files = open(&bundled(&model, None), &options).unwrap();
    assert_eq!(files.slug, "model");
    for name in ["model.safetensors", "tokenizer.json", "1_Pooling/config.json", "modules.json", "golden/golden.json", "golden/golden.safetensors"] {
        assert_eq!(std::fs::read(files.root.join(name)).unwrap(), std::fs::read(model.root().join(name)).unwrap(), "{name}");
    }
    assert!(files.goldens().unwrap().is_some());
    let again = open(&model.dir.path().join("small.vecmill"), &options).unwrap();
    assert_eq!(again.root, files.root);
    // What was unpacked is not believed blindly.
    std::fs::write(files.root.join("modules.json"), "[]").unwrap();
    open(&model.dir.path().join("small.vecmill"), &options).unwrap();
    assert_eq!(std::fs::read(files.root.join("modules.json")).unwrap(), std::fs::read(model.root().join("modules.json")).unwrap());
}

#[test]
fn any_flipped_byte_is_refused_and_its_place_named() {
    let (model, machine) = (Certified::new("old-mean"), Machine::new());
    let options = Options { offline: true, ..machine.options("https://hub.invalid") };
    let key = SecretKey::create(&model.dir.path().join("key")).unwrap();
    let path = bundled(&model, Some(&key));
    let good = std::fs::read(&path).unwrap();
    open(&path, &options).unwrap();
    let bad = model.dir.path().join("bad.vecmill");
    let refusal = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        match open(&bad, &options) {
            Err(HubError::Bundle { part, reason, .. }) => (part, reason),
            Err(other) => panic!("{other}"),
            Ok(_) => (String::new(), String::new()),
        }
    };
    // Every part: all of the first blocks, and then steps that meet each block of 512 at ever other places.
    let places: Vec<usize> = (0..1024).step_by(7).chain((1024..good.len()).step_by(331)).collect();
    for at in places {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        assert!(!refusal(&bytes).0.is_empty(), "byte {at} of {}", good.len());
    }
    let position = |needle: &[u8]| good.windows(needle.len()).position(|window| window == needle).unwrap();
    let weights = std::fs::read(model.root().join("model.safetensors")).unwrap();
    let mut bytes = good.clone();
    bytes[position(&weights) + weights.len() / 2] ^= 0x10;
    let (part, reason) = refusal(&bytes);
    assert!(part == "model.safetensors" && reason.contains("the manifest says"), "{part}: {reason}");
    assert_eq!(refusal(&good[..good.len() - 1]).0, "the end");
    assert_eq!(refusal(&[&good[..], b"x"].concat()).0, "the end");
    let unpacked: Vec<_> = std::fs::read_dir(machine.dir.path().join("cache/models")).unwrap().collect();
    assert_eq!(unpacked.len(), 1, "nothing of a bad bundle is kept");
    // The good one, damaged after it was verified.
    let mut bytes = good.clone();
    bytes[position(&weights)] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let time = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert!(matches!(open(&path, &options), Err(HubError::Bundle { part, .. }) if part == "model.safetensors"));
}

#[test]
fn trust_takes_what_the_key_has_signed_and_nothing_else() {
    let (model, machine) = (Certified::new("old-mean"), Machine::new());
    let key = SecretKey::create(&model.dir.path().join("key")).unwrap();
    let other = SecretKey::create(&model.dir.path().join("other")).unwrap();
    let trust = |key: &SecretKey| Options { offline: true, trust: Some(key.public()), ..machine.options("https://hub.invalid") };
    let refused = |bundle: &Path, options: &Options| match open(bundle, options) {
        Err(error @ HubError::Untrusted { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{} was taken", bundle.display()),
    };
    let path = bundled(&model, Some(&key));
    open(&path, &trust(&key)).unwrap();
    assert!(refused(&path, &trust(&other)).contains(&key.public().to_string()), "unpacked already, and still not trusted");
    assert!(refused(&bundled(&model, None), &trust(&key)).contains("not signed"));
    assert!(refused(&model.root(), &trust(&key)).contains("not signed"), "nor is a directory");
    let read = SecretKey::read(&model.dir.path().join("key")).unwrap();
    assert_eq!(read.public(), key.public());
    assert!(SecretKey::create(&model.dir.path().join("key")).is_err(), "a key is never overwritten");
    assert!("abc".parse::<PublicKey>().is_err());
}

#[test]
fn a_gguf_file_is_neither_a_damaged_bundle_nor_put_into_one() {
    let machine = Machine::new();
    let options = Options { offline: true, ..machine.options("https://hub.invalid") };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gguf/bert-f32.gguf");
    let files = open(&path, &options).unwrap();
    assert_eq!(weights_digest(&files, &options, &Silent).unwrap(), sha256(&std::fs::read(&path).unwrap()), "the file is its weights");
    assert_eq!(weights_digest(&files, &options, &Silent).unwrap(), sha256(&std::fs::read(&path).unwrap()), "as noted in the cache");
    assert!(files.goldens().unwrap().is_none());
    let out = machine.dir.path().join("x.vecmill");
    let error = write(&files, &out, None, &Silent).unwrap_err().to_string();
    assert!(error.contains("bert-f32.gguf: is one file already") && !out.exists(), "{error}");
}

#[test]
fn a_bundle_is_served_verified_and_explained_like_its_directory() {
    let model = Certified::new("old-mean");
    let (root, cache) = (model.root(), model.dir.path().join("cache"));
    let (root, cache, path) = (root.to_str().unwrap(), cache.to_str().unwrap(), model.dir.path().join("m.vecmill"));
    let (path, key) = (path.to_str().unwrap(), model.dir.path().join("k"));
    let run = |words: &[&str]| {
        let output = vecmill(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let public = run(&["bundle", "keygen", "-o", key.to_str().unwrap()]).1;
    let (code, text, error) = run(&["bundle", root, "-o", path, "--sign", key.to_str().unwrap(), "--offline"]);
    assert_eq!((code, text.trim()), (Some(0), path), "{error}");
    let common = ["--offline", "--cache-dir", cache, "--trust", public.trim(), "--dtype", "f32"];
    let verified = run(&[&["verify", "--model", path][..], &common].concat());
    assert!(verified.0 == Some(0) && verified.1.contains("holds"), "{verified:?}");

    let mut server = Server::spawn(command(&[&["--model", path, "--port", "0"][..], &common].concat()));
    let from_bundle = server.embed(&json!({"model": "model", "input": "the cat"}));
    let item = |server: &Server| serde_json::from_str::<Value>(&server.get("/v1/models/model").1).unwrap()["data"].clone();
    let bundle_item = item(&server);
    server.terminate();
    server.wait();
    let server = Server::spawn(command(&["--model", root, "--port", "0", "--offline", "--cache-dir", cache, "--dtype", "f32"]));
    let from_directory = server.embed(&json!({"model": "model", "input": "the cat"}));
    assert_eq!((from_bundle.0, &from_bundle.1["data"]), (200, &from_directory.1["data"]));
    assert_eq!(bundle_item["space"], item(&server)["space"], "the same weights are the same space, whatever carried them");
    assert_eq!(bundle_item["fidelity"]["texts"], 16);

    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let (code, _, error) = run(&[&["serve", "--model", path, "--port", "0"][..], &common].concat());
    assert!(code == Some(1) && error.contains("m.vecmill is not used: "), "{code:?} {error}");
}
