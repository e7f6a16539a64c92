//! The input: text, JSON lines, CSV or Parquet, read as a stream of rows. A bad row is a finding, not the end.

mod csv;
mod lines;
mod parquet;

use super::line::Block;
use anyhow::{Context, bail};
use arrow_schema::SchemaRef;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A row larger than this is refused rather than held in memory.
const MAX_ROW_BYTES: u64 = 32 << 20;
/// Rows are handed on when so many of them are together, or so many bytes.
const BLOCK_ROWS: usize = 256;
const BLOCK_BYTES: usize = 1 << 20;
/// The columns that are meant where none is named.
const TEXT_COLUMN: &str = "text";
const ID_COLUMN: &str = "id";

/// How the input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// Every line is a text; an empty one is refused, and counts.
    Text,
    /// Every line is a JSON string or an object with a text and perhaps an id; blank lines are skipped.
    Jsonl,
    /// Comma-separated values (RFC 4180) with a header row.
    Csv,
    /// Tab-separated values with a header row, quoted as in CSV.
    Tsv,
    /// An Apache Parquet file.
    Parquet,
}

impl InputFormat {
    /// What a file's name says of its format.
    pub fn by_name(path: &Path) -> Self {
        match path.extension().map(|extension| extension.to_ascii_lowercase()).as_deref().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Self::Jsonl,
            Some("csv") => Self::Csv,
            Some("tsv") => Self::Tsv,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

/// What is wanted of the input.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The column of the texts; `None` = `text`, or the only one that it can be.
    pub column: Option<String>,
    /// The column of the ids; `None` = `id` if there is one, empty = none.
    pub id_column: Option<String>,
    /// The output holds columns: all of the input's are kept.
    pub keep_columns: bool,
    /// The output holds ids.
    pub keep_ids: bool,
}

impl Wanted {
    /// The fields of a JSON object that are text and id; an id of no name is not looked for.
    fn fields(&self) -> (String, Option<String>) {
        let column = self.column.clone().unwrap_or_else(|| TEXT_COLUMN.to_owned());
        let id = self.id_column.clone().unwrap_or_else(|| ID_COLUMN.to_owned());
        (column, Some(id).filter(|id| !id.is_empty()))
    }
}

/// Rows, in order.
pub trait Source: Send {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// Input that cannot be read any further.
    fn block(&mut self) -> anyhow::Result<Option<Block>>;
}

/// How much there is to read, in the unit of [`Block::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Unknown,
    Bytes(u64),
    Rows(u64),
}

/// An input that has been opened.
pub struct Input {
    pub source: Box<dyn Source>,
    /// The columns of every block's table; `None` if none are kept.
    pub columns: Option<SchemaRef>,
    pub extent: Extent,
    /// What tells this input and this reading of it from others, by name.
    pub identity: Vec<(&'static str, String)>,
}

/// Opens a file, or standard input for `-`.
///
/// # Errors
/// A file that cannot be opened, is not what its format says, or lacks the columns.
pub fn open(path: &Path, format: Option<InputFormat>, wanted: &Wanted) -> anyhow::Result<Input> {
    let format = format.unwrap_or_else(|| InputFormat::by_name(path));
    let mut identity = vec![("input format", format!("{format:?}").to_lowercase())];
    for (name, said) in [("column", &wanted.column), ("id column", &wanted.id_column)] {
        identity.push((name, said.clone().unwrap_or_else(|| "by default".to_owned())));
    }
    let mut extent = Extent::Unknown;
    let opened = if path.as_os_str() == "-" {
        if format == InputFormat::Parquet {
            bail!("parquet cannot be read from standard input, its index is at its end: give --input FILE");
        }
        Opened::Stream(Box::new(io::stdin()))
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let metadata = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        if metadata.is_file() {
            extent = Extent::Bytes(metadata.len());
            identity.push(("input size in bytes", metadata.len().to_string()));
            let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            identity.push(("input's time of change (ns)", modified.as_nanos().to_string()));
        } else if format == InputFormat::Parquet {
            bail!("{} is not a regular file, which parquet must be", path.display());
        }
        Opened::File(file)
    };
    let at = || format!("cannot read {}", if path.as_os_str() == "-" { "standard input".into() } else { path.to_string_lossy() });
    let (source, columns): (Box<dyn Source>, _) = match (format, opened) {
        (InputFormat::Parquet, Opened::File(file)) => {
            let (source, columns, rows) = parquet::open(file, wanted).with_context(at)?;
            extent = Extent::Rows(rows);
            (Box::new(source), columns)
        }
        (InputFormat::Csv | InputFormat::Tsv, opened) => {
            let delimiter = if format == InputFormat::Csv { b',' } else { b'\t' };
            let (source, columns) = csv::open(opened.stream(), delimiter, wanted).with_context(at)?;
            (Box::new(source), columns)
        }
        (_, opened) => {
            let (source, columns) = lines::open(opened.stream(), format == InputFormat::Jsonl, wanted).with_context(at)?;
            (Box::new(source), columns)
        }
    };
    Ok(Input { source, columns, extent, identity })
}

enum Opened {
    File(File),
    Stream(Box<dyn Read + Send>),
}

impl Opened {
    fn stream(self) -> Box<dyn Read + Send> {
        match self {
            Self::File(file) => Box::new(file),
            Self::Stream(stream) => stream,
        }
    }
}

/// Which of some columns are the text and the id: what was named, else the usual names, else the only one that can hold text.
///
/// # Errors
/// A sentence that lists the columns.
fn choose(columns: &[Column], wanted: &Wanted) -> anyhow::Result<(usize, Option<usize>)> {
    let listed = || columns.iter().map(|column| format!("{:?}{}", column.name, column.kind)).collect::<Vec<_>>().join(", ");
    let find = |name: &str, flag: &str| -> anyhow::Result<Option<usize>> {
        let mut found = columns.iter().enumerate().filter(|(_, column)| column.name == name).map(|(at, _)| at);
        let first = found.next();
        if found.next().is_some() {
            bail!("there are several columns {name:?}, so {flag} cannot tell which is meant; the columns are {}", listed());
        }
        Ok(first)
    };
    let id = match wanted.id_column.as_deref() {
        Some("") => None,
        Some(name) => {
            Some(find(name, "--id-column")?.with_context(|| format!("there is no column {name:?} (--id-column); the columns are {}", listed()))?)
        }
        None => find(ID_COLUMN, "--id-column")?,
    };
    let text = match &wanted.column {
        Some(name) => find(name, "--column")?.with_context(|| format!("there is no column {name:?} (--column); the columns are {}", listed()))?,
        None => match find(TEXT_COLUMN, "--column")? {
            Some(text) => text,
            None => {
                let mut able = (0..columns.len()).filter(|&at| columns[at].is_text && Some(at) != id);
                match (able.next(), able.next()) {
                    (Some(only), None) => only,
                    _ => bail!("there is no column {TEXT_COLUMN:?}: name the one with the texts with --column; the columns are {}", listed()),
                }
            }
        },
    };
    if !columns[text].is_text {
        bail!("column {:?} does not hold text; the columns are {}", columns[text].name, listed());
    }
    if let Some(id) = id.filter(|&id| wanted.keep_ids && !columns[id].is_id) {
        bail!(
            "column {:?} cannot be an id: name another with --id-column, or none with --id-column \"\"; the columns are {}",
            columns[id].name,
            listed()
        );
    }
    Ok((text, id))
}

/// A column as far as the choice is concerned.
struct Column {
    name: String,
    /// Its type in brackets, where it has one.
    kind: String,
    is_text: bool,
    is_id: bool,
}

#[cfg(test)]
mod tests;
