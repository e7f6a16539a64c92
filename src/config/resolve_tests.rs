//! Defaults, precedence between flags and file, and every impossible pair with its sentence.

use super::*;
use crate::engine::load::{Cpu, Level};
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    said: Said,
}

fn said(words: &[&str]) -> Said {
    Line::parse_from(["serve"].iter().chain(words)).said
}

fn resolved(words: &[&str]) -> Result<Resolved, String> {
    serve(said(words), &Env::from([("HOME", "/home/u")])).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_those_of_the_help() {
    let resolved = resolved(&["--model", "all-MiniLM-L6-v2"]).unwrap();
    assert_eq!(resolved.listen.to_string(), "127.0.0.1:8000");
    assert_eq!((resolved.service.max_texts, resolved.service.max_request_tokens), (2048, 300_000));
    assert_eq!((resolved.api.max_body_bytes, resolved.engine.max_queue_tokens), (32 << 20, 1_200_000));
    assert_eq!(resolved.service.deadline, Duration::from_secs(55));
    assert_eq!(resolved.models[0].slug, "sentence-transformers/all-MiniLM-L6-v2");
    assert_eq!(resolved.hub.cache_dir, PathBuf::from("/home/u/.cache/vecmill"));
    assert!(!resolved.hub.offline && !resolved.no_auth);
}

#[test]
fn links_follow_the_certificate_and_the_public_url() {
    let model = ["--model", "all-MiniLM-L6-v2"];
    let api = |words: &[&str]| resolved(&[&model[..], words].concat()).unwrap().api;
    assert_eq!((api(&[]).https, api(&[]).public_url), (false, None));
    let api = api(&["--tls-cert", "c.pem", "--tls-key", "k.pem", "--public-url", "https://x"]);
    assert_eq!((api.https, api.public_url.as_deref()), (true, Some("https://x")));
}

#[test]
fn the_flag_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vecmill.toml");
    let text = "model = \"x=all-MiniLM-L6-v2\"\nport = 1\nmax_texts = 7\n[models.x]\ntruncate = \"end\"\nmax_tokens = 99\nmrl_layer_norm = true\n";
    std::fs::write(&path, text).unwrap();
    let resolved = resolved(&["--config", path.to_str().unwrap(), "--port", "2"]).unwrap();
    assert_eq!((resolved.listen.port(), resolved.service.max_texts), (2, 7));
    let model = &resolved.models[0];
    assert!(model.settings.mrl_layer_norm);
    assert_eq!((model.slug.as_str(), model.settings.truncate, model.load.max_tokens), ("x", crate::wire::Truncate::End, Some(99)));
}

#[test]
fn impossible_pairs_are_refused_with_the_remedy() {
    let model = ["--model", "all-MiniLM-L6-v2"];
    let refused = |words: &[&str]| resolved(&[&model[..], words].concat()).err().unwrap_or_else(|| panic!("{words:?} was accepted"));
    assert!(refused(&["--keys", "k.toml", "--no-auth"]).contains("leave one of them out"));
    assert!(refused(&["--store", "mysql://secret"]).contains("postgres://") && !refused(&["--store", "mysql://secret"]).contains("secret"));
    assert!(refused(&["--host", "example.org"]).contains("not an IP address"));
    assert!(refused(&["--max-queue-tokens", "10"]).contains("--max-request-tokens 300000"));
    assert!(refused(&["--max-texts", "0"]).contains("--max-texts must be at least 1"));
    assert!(refused(&["--threads", "0"]).contains("--threads"));
    assert!(refused(&["--device", "tpu"]).contains("--device \"tpu\""));
    assert!(refused(&["--min-cosine", "1.5"]).contains("--min-cosine 1.5"));
    assert!(refused(&["--dtype", "f64"]).contains("--dtype \"f64\""));
    assert!(refused(&["--cpu-level", "sse"]).contains("--cpu-level \"sse\""));
    assert!(refused(&["--log-format", "xml"]).contains("pretty or json"));
    assert!(refused(&["--public-url", "ftp://x"]).contains("http://"));
    assert!(refused(&["--tls-cert", "c.pem"]).contains("--tls-key FILE"));
    assert!(refused(&["--tls-key", "k.pem"]).contains("--tls-cert FILE"));
    assert!(refused(&["--cors-origin", "https://a.example,b.example"]).contains("\"b.example\""));
    assert!(refused(&["--openai-host", "https://x"]).contains("without scheme"));
    assert!(refused(&["--job-input-url", "https://x/a"]).contains("ends with a slash"));
    assert!(refused(&["--job-input-network", "ten"]).contains("10.0.0.0/8"));
    assert!(refused(&["--offline", "--job-input-url", "https://x/"]).contains("contradict"));
    assert_eq!(resolved(&[&model[..], &["--offline", "--job-input-url", "file:///a/,file:///b/"]].concat()).unwrap().api.inputs.places.len(), 2);
    assert!(resolved(&[&model[..], &["--expired-jobs-fail"]].concat()).unwrap().books.jobs.expired_is_failed);
    assert!(resolved(&[]).unwrap_err().contains("--model"));
    assert!(resolved(&["--model", "=x"]).unwrap_err().contains("SLUG=WHAT"));
    assert!(resolved(&[&model[..], &["--host", "0.0.0.0", "--no-auth"]].concat()).unwrap().no_auth);
}

#[test]
fn a_level_that_the_processor_lacks_is_refused_by_what_is_missing() {
    for level in Level::ALL {
        match resolved(&["--model", "all-MiniLM-L6-v2", "--cpu-level", level.name()]) {
            Ok(resolved) => assert_eq!(resolved.models[0].load.cpu.map(Cpu::level), Some(level)),
            Err(error) => assert!(!level.is_here() && level.lacks().iter().all(|feature| error.contains(feature)), "{error}"),
        }
    }
    assert!(resolved(&["--model", "all-MiniLM-L6-v2", "--cpu-level", "auto"]).unwrap().models[0].load.cpu.is_none());
}

#[test]
fn a_server_that_others_can_reach_needs_keys_from_somewhere() {
    let open = |words: &[&str], stored| {
        let resolved = resolved(&[&["--model", "all-MiniLM-L6-v2"][..], words].concat()).unwrap();
        resolved.open_to_all(stored).map_err(|error| error.to_string())
    };
    assert_eq!((open(&[], false), open(&[], true), open(&["--keys", "k"], false)), (Ok(true), Ok(false), Ok(false)));
    assert!(open(&["--host", "0.0.0.0"], false).unwrap_err().contains("--keys FILE"));
    assert_eq!((open(&["--host", "0.0.0.0"], true), open(&["--host", "0.0.0.0", "--no-auth"], true)), (Ok(false), Ok(true)));
}

#[test]
fn the_store_is_a_file_unless_something_else_is_said() {
    let store = |words: &[&str]| resolved(&[&["--model", "all-MiniLM-L6-v2"][..], words].concat()).unwrap().store;
    assert_eq!(store(&[]), Place::File("/home/u/.local/share/vecmill/vecmill.db".into()));
    assert_eq!(store(&["--data-dir", "/d"]), Place::File("/d/vecmill.db".into()));
    assert_eq!((store(&["--store", "memory"]), store(&["--store", "postgres://h/d"])), (Place::Memory, Place::Postgres("postgres://h/d".into())));
}

#[test]
fn a_table_for_a_model_that_is_not_served_is_a_typo() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vecmill.toml");
    std::fs::write(&path, "model = \"x=all-MiniLM-L6-v2\"\n[models.y]\ntruncate = \"end\"\n").unwrap();
    let error = resolved(&["--config", path.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("\"y\"") && error.contains("the slugs are x"), "{error}");
}

#[test]
fn the_summary_holds_no_secret() {
    let env = Env::from([("HF_TOKEN", "hf_secret"), ("HOME", "/h")]);
    let resolved = serve(said(&["--model", "all-MiniLM-L6-v2"]), &env).unwrap();
    assert!(resolved.hub.hf_token.is_some() && !resolved.summary().contains("hf_secret"));
}

#[test]
fn aliases_name_a_model_that_is_served_and_hide_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vecmill.toml");
    let with = |aliases: &str| {
        std::fs::write(&path, format!("model = \"x=all-MiniLM-L6-v2\"\n[aliases]\n{aliases}\n")).unwrap();
        resolved(&["--config", path.to_str().unwrap()]).map(|resolved| resolved.aliases)
    };
    let alias = |prompt: Option<&str>, dimensions| Alias { name: "a".into(), slug: "x".into(), prompt: prompt.map(str::to_owned), dimensions };
    assert_eq!(with("a = \"x\"").unwrap(), [alias(None, None)]);
    assert_eq!(with("a = \"all-MiniLM-L6-v2\"").unwrap(), [alias(None, None)]);
    assert_eq!(with("a = \"x:query\"").unwrap(), [alias(Some("query"), None)]);
    assert_eq!(with("a = { model = \"x\", prompt = \"document\", dimensions = 64 }").unwrap(), [alias(Some("document"), Some(64))]);
    for (bad, why) in [
        ("a = \"y\"", "the slugs are x"),
        ("x = \"x\"", "already"),
        ("all-MiniLM-L6-v2 = \"x\"", "already"),
        ("\"\" = \"x\"", "empty"),
        ("a = { model = \"x\", dimensions = 0 }", "at least 1"),
        ("a = { model = \"x:query\", prompt = \"query\" }", "no model"),
        ("a = \"x\"\nb = \"a\"", "no model \"a\""),
    ] {
        let error = with(bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}
