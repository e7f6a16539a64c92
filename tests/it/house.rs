//! The house's rules, held by a test: which room may know which, and which foreign crate may be named where.

use std::path::{Path, PathBuf};

/// Each room with the rooms it may name. `wire`, `ragged` and `telemetry` are leaves that all may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config"]),
    ("lib", &[]),
    ("cli", &["api", "config", "service", "store", "engine", "exec", "kernels", "hub", "card"]),
    ("config", &["api", "service", "store", "engine", "hub"]),
    ("api", &["service"]),
    ("service", &["store", "engine", "hub", "card"]),
    ("store", &[]),
    ("engine", &["encoders", "exec", "kernels", "network", "hub", "card"]),
    ("encoders", &["network"]),
    ("exec", &["network", "kernels"]),
    ("network", &[]),
    ("kernels", &[]),
    ("hub", &["card"]),
    ("card", &[]),
    ("wire", &[]),
    ("ragged", &[]),
    ("telemetry", &[]),
];

/// Rooms that every room may name.
const LEAVES: [&str; 3] = ["wire", "ragged", "telemetry"];

/// Words that may stand only in the places named (a room, or a file), and why.
const WORDS: &[(&[&str], &[&str], &str)] = &[
    (&["axum", "axum_server", "tower", "tower_http"], &["api"], "only the api room knows HTTP's framework"),
    (
        &["rustls"],
        &["api/tls.rs", "api/input/remote.rs", "cli/health.rs"],
        "only the listener, the fetching of inputs and the health check speak TLS",
    ),
    (&["utoipa", "utoipa_swagger_ui"], &["api", "wire"], "the OpenAPI document describes what goes over the wire"),
    (&["clap"], &["cli", "config"], "only the command line and the configuration parse flags"),
    (&["std::env"], &["config", "main.rs", "kernels/threads.rs"], "only the configuration reads the environment"),
    (&["tokenizers"], &["service/tokenizer.rs", "service/tokenizer"], "only the tokenizer page knows the tokenizer crate"),
    (&["tiktoken_rs"], &["service/cl100k.rs"], "only its own page knows OpenAI's vocabulary"),
    (&["hf_hub"], &["hub"], "only the hub room fetches"),
    (&["sqlx"], &["store"], "only the store knows SQL"),
    (&["parquet", "arrow_array", "arrow_ipc", "arrow_schema", "arrow_select"], &["cli/embed"], "only the bulk command knows tables"),
    (&["candle_core", "candle_nn"], &["engine", "network.rs", "network", "encoders", "exec", "kernels"], "nothing above the engine sees a tensor"),
    (&["unsafe"], &["kernels", "engine/load.rs", "engine/load", "network/mmap.rs"], "unsafe code stays in the kernels and the weights' memory map"),
    (&["cfg(feature", "candle_flash_attn", "cudarc"], &["kernels", "hub"], "nothing above the kernels knows whether a GPU exists"),
];

/// Every source file, below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => {
                    files.push((path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()));
                }
                false => {}
            }
        }
    }
    assert!(files.len() > 20, "the scan found only {} files", files.len());
    files
}

/// The first part of a file's path: its room.
fn room(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Lines of code with their numbers; comments are left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `word` stands in the line as a word of its own.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(|c| part(c) || c == '"') && !after.starts_with(|c| part(c) || c == '"')
    })
}

/// The rooms that a line names as `crate::room`, or in `crate::{room, ..}`.
fn rooms_named(line: &str) -> Vec<String> {
    let word = |text: &str| text.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
    let mut rooms = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        let rest = &line[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(list.split('}').next().unwrap_or_default().split(',').map(word)),
            None => rooms.push(word(rest)),
        }
    }
    rooms
}

#[test]
fn arrows_point_one_way() {
    for (path, text) in sources() {
        let room = room(&path);
        let allowed = ARROWS.iter().find(|(from, _)| *from == room).unwrap_or_else(|| panic!("{}: room {room:?} has no row here", path.display())).1;
        for (number, line) in code(&text) {
            for named in rooms_named(line) {
                let known = ARROWS.iter().any(|(other, _)| *other == named);
                let fine = !known || named == room || LEAVES.contains(&named.as_str()) || allowed.contains(&named.as_str());
                assert!(fine, "{}:{number}: {room} must not know {named}", path.display());
            }
        }
    }
}

#[test]
fn foreign_words_stay_in_their_rooms() {
    for (path, text) in sources() {
        for (words, places, reason) in WORDS {
            if places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for (number, line) in code(&text) {
                // `forbid(unsafe_...)` and the like are not uses.
                let line = line.replace("unsafe_", "");
                if let Some(word) = words.iter().find(|word| names(&line, word)) {
                    panic!("{}:{number}: `{word}` - {reason}", path.display());
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{}: opens with one //! sentence", path.display());
    }
}

#[test]
fn files_fit_in_a_head() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 480, "{}: {lines} lines; one page, one idea", path.display());
    }
}
