//! The README says what the code does: its tables of options, keys and metrics are held to the declarations they describe.

use clap::Args as _;
use std::path::Path;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn metrics_are_those_of_the_table_in_telemetry() {
    let table = vecmill::telemetry::markdown_table();
    assert!(readme().contains(&table), "between <!-- metrics --> and <!-- /metrics --> the README must hold:\n{table}");
}

#[test]
fn every_option_of_serve_has_its_row() {
    let readme = readme();
    let command = vecmill::config::Said::augment_args(clap::Command::new("serve"));
    let options: Vec<_> = command.get_arguments().collect();
    assert!(options.len() > 20, "only {} options found", options.len());
    for option in options {
        let flag = option.get_long().unwrap();
        let row = readme.lines().find(|line| line.starts_with(&format!("| `--{flag}`")) || line.starts_with(&format!("| `--{flag} ")));
        let row = row.unwrap_or_else(|| panic!("the README has no row for --{flag}"));
        let variable = option.get_env().unwrap_or_else(|| panic!("--{flag} has no variable")).to_str().unwrap();
        assert!(row.contains(&format!("`{variable}`")), "the row of --{flag} does not name {variable}: {row}");
        if flag != "config" {
            assert!(row.contains(&format!("`{}`", option.get_id())), "the row of --{flag} does not name its key in the file: {row}");
        }
    }
}

#[test]
fn the_example_of_a_configuration_file_is_accepted() {
    let readme = readme();
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(example.contains("[models.notes]"), "the first toml block is not the configuration file");
    // The model's directory and the keys file need not exist for the file to be read.
    let said: vecmill::config::Said = toml::from_str(example).unwrap();
    assert_eq!(said.model.len(), 2);
    let notes = &said.models["notes"];
    assert!(notes.truncate.is_some() && notes.max_tokens.is_some() && notes.matryoshka.is_some() && notes.matryoshka_strict.is_some());
    assert_eq!(said.aliases.len(), 2);
    assert!(notes.normalize.is_some() && notes.default_prompt.is_some() && notes.empty_input.is_some() && notes.dtype.is_some());
}

#[test]
fn every_architecture_has_its_row() {
    let readme = readme();
    for name in vecmill::encoders::architectures() {
        let rows = readme.lines().filter(|line| line.starts_with("| ") && line.contains(&format!("| `{name}`"))).count();
        assert_eq!(rows, 1, "the README's table of architectures must have one row for {name}");
    }
}
