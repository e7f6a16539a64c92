//! What passes from the reader to the writer: texts with their place in the input, and the columns that stand beside them.

use arrow_array::RecordBatch;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One row of the input, as a format reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What the input calls it; any JSON value.
    pub id: Option<Value>,
    /// The text, or why there is none.
    pub text: Result<String, String>,
}

impl Item {
    /// A text without a name. An empty one is refused, as it is over HTTP.
    pub fn of(id: Option<Value>, text: Result<String, String>) -> Self {
        let text = text.and_then(|text| if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) });
        Self { id, text }
    }
}

/// Rows that were read together.
#[derive(Debug)]
pub struct Block {
    pub items: Vec<Item>,
    /// The columns that the output keeps, one row for each item; `None` if it keeps none.
    pub table: Option<RecordBatch>,
    /// How far into the input the last of them ends, in the source's own unit.
    pub end: u64,
}

/// A row with its place.
#[derive(Debug)]
pub struct Line {
    /// Its place among the rows, from 0.
    pub index: u64,
    pub id: Option<Value>,
    pub text: Result<String, String>,
    /// What the input was up to and with this row.
    pub chain: Chain,
}

/// Numbered rows that were read together.
pub struct Lines {
    pub lines: Vec<Line>,
    pub table: Option<RecordBatch>,
    pub end: u64,
}

/// A digest of all rows so far: two inputs that have the same one at a row are the same up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain([u8; 32]);

impl Chain {
    /// The digest one row further.
    pub fn and(self, item: &Item) -> Self {
        let id = item.id.as_ref().map(Value::to_string).unwrap_or_default();
        let (kind, text) = match &item.text {
            Ok(text) => (b't', text),
            Err(reason) => (b'e', reason),
        };
        let mut hash = Sha256::new_with_prefix(self.0);
        for part in [id.as_bytes(), &[kind], text.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// As lower-case hex.
    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_knows_every_row_and_where_its_parts_end() {
        let item = |id: &str, text: &str| Item::of(Some(id.into()), Ok(text.to_owned()));
        let one = Chain::default().and(&item("a", "bc"));
        assert_eq!(one, Chain::default().and(&item("a", "bc")));
        for other in [item("ab", "c"), item("a", "bd"), Item::of(None, Ok("bc".into())), Item::of(Some("a".into()), Err("bc".into()))] {
            assert_ne!(one, Chain::default().and(&other), "{other:?}");
        }
        assert_ne!(one.and(&item("a", "bc")), one);
        assert_eq!(one.hex().len(), 64);
    }
}
