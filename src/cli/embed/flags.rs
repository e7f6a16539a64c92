//! The flags of `vecmill embed`.

use super::read::{InputFormat, Wanted};
use super::sink::OnError;
use super::write::OutputFormat;
use crate::config::ModelSaid;
use crate::wire::Truncate;
use std::path::PathBuf;

/// A run that is ended goes on where it was when the same command is given again: beside OUT stand OUT.part and OUT.part.json until it is whole.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// The model: a card's name, a directory, a GGUF file, or owner/name on the hub.
    #[arg(long, value_name = "WHAT")]
    pub model: String,
    /// The texts; `-` = standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// How the input is written [default: by its name's ending: .jsonl, .ndjson, .csv, .tsv, .parquet, else text]
    #[arg(long, visible_alias = "format", value_enum)]
    pub input_format: Option<InputFormat>,
    /// The column (of JSON lines: the field) that holds the texts [default: text, or the only column of text]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// The column whose values name the rows in JSON lines; empty = none [default: id, if there is one]
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// Where the vectors go; `-` = standard output, which takes JSON lines. Appears when it is whole.
    #[arg(long, value_name = "OUT", default_value = "-")]
    pub output: PathBuf,
    /// How the output is written [default: by its name's ending: .jsonl, .npy, .safetensors, .parquet; jsonl if it has none]
    #[arg(long, value_enum)]
    pub output_format: Option<OutputFormat>,
    /// The name of the column of vectors in Parquet.
    #[arg(long, value_name = "NAME", default_value = "embedding")]
    pub embedding_column: String,
    /// What to do with a row that has no vector: null, an empty text, one that is too long.
    #[arg(long, value_enum, default_value_t = OnError::Null)]
    pub on_error: OnError,
    /// Begin again instead of going on with OUT.part.
    #[arg(long)]
    pub restart: bool,
    /// What to do with a text longer than the model takes: refuse it, keep its beginning (end is cut), or keep its end (start is cut).
    #[arg(long, value_parser = truncate, value_name = "none|end|start")]
    pub truncate: Option<Truncate>,
    /// Keep this many leading components of each vector.
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// Name of the model's prompt to put before each text: `query`, `document`, ...
    #[arg(long, value_name = "NAME")]
    pub input_type: Option<String>,
    /// Unit length whatever the model says, or as the model's own modules leave it.
    #[arg(long, value_enum, default_value_t = Normalize::Unit)]
    pub normalize: Normalize,
    #[command(flatten)]
    pub model_options: ModelSaid,
}

/// The length of the vectors that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Normalize {
    /// Every vector has length 1.
    Unit,
    /// As modules.json leaves it.
    Model,
}

impl Flags {
    /// What the output needs of the input.
    pub fn wanted(&self, output: OutputFormat) -> Wanted {
        Wanted {
            column: self.column.clone(),
            id_column: self.id_column.clone(),
            keep_columns: output == OutputFormat::Parquet,
            keep_ids: output == OutputFormat::Jsonl,
        }
    }
}

fn truncate(said: &str) -> Result<Truncate, String> {
    match said {
        "none" => Ok(Truncate::None),
        "end" => Ok(Truncate::End),
        "start" => Ok(Truncate::Start),
        _ => Err("must be none, end or start".to_owned()),
    }
}
