//! The thread that reads: numbers the rows, skips those that a checkpoint says are done, and hands the rest on.

use super::line::{Chain, Line, Lines};
use super::read::Source;
use anyhow::{Context, bail};
use tokio::sync::mpsc;

/// What an earlier run has done of the same input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skip {
    pub rows: u64,
    /// The input's digest after them, as hex.
    pub chain: String,
}

/// Reads in a thread of its own, not a blocking task: one that waits for a terminal must not keep the process from ending.
///
/// # Errors
/// No thread.
pub fn start(source: Box<dyn Source>, skip: Skip) -> anyhow::Result<mpsc::Receiver<anyhow::Result<Lines>>> {
    let (sender, receiver) = mpsc::channel(2);
    let thread = std::thread::Builder::new().name("embed-reader".to_owned());
    thread
        .spawn(move || {
            let told = read(source, &skip, |lines| sender.blocking_send(Ok(lines)).is_ok());
            if let Err(error) = told {
                // Nobody may listen any more.
                let _ = sender.blocking_send(Err(error));
            }
        })
        .context("cannot start the reader")?;
    Ok(receiver)
}

/// Hands on the rows after `skip` until the input ends, fails, or nobody takes them.
fn read(mut source: Box<dyn Source>, skip: &Skip, mut take: impl FnMut(Lines) -> bool) -> anyhow::Result<()> {
    let (mut rows, mut chain) = (0, Chain::default());
    while let Some(block) = source.block().with_context(|| format!("cannot read the input after row {rows}"))? {
        let mut lines = Vec::with_capacity(block.items.len());
        let mut skipped = 0;
        for item in block.items {
            chain = chain.and(&item);
            rows += 1;
            if rows > skip.rows {
                lines.push(Line { index: rows - 1, id: item.id, text: item.text, chain });
                continue;
            }
            skipped += 1;
            if rows == skip.rows && chain.hex() != skip.chain {
                bail!("the input's first {rows} rows are not those that were embedded before: start over with --restart");
            }
        }
        let table = block.table.map(|table| table.slice(skipped, table.num_rows().saturating_sub(skipped)));
        if !lines.is_empty() && !take(Lines { lines, table, end: block.end }) {
            return Ok(());
        }
    }
    if rows < skip.rows {
        bail!("the input has {rows} rows, of which {} were embedded before: it has changed; start over with --restart", skip.rows);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::line::{Block, Item};
    use super::*;

    struct Blocks(Vec<Vec<&'static str>>);

    impl Source for Blocks {
        fn block(&mut self) -> anyhow::Result<Option<Block>> {
            if self.0.is_empty() {
                return Ok(None);
            }
            let items = self.0.remove(0).into_iter().map(|text| Item::of(None, Ok(text.to_owned()))).collect();
            Ok(Some(Block { items, table: None, end: 0 }))
        }
    }

    fn rest(blocks: Vec<Vec<&'static str>>, skip: &Skip) -> anyhow::Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        read(Box::new(Blocks(blocks)), skip, |lines| {
            found.extend(lines.lines.into_iter().map(|line| (line.index, line.text.unwrap())));
            true
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_done_is_skipped_if_it_is_the_same() {
        let chain = ["a", "b", "c"].iter().fold(Chain::default(), |chain, text| chain.and(&Item::of(None, Ok((*text).to_owned()))));
        let skip = Skip { rows: 3, chain: chain.hex() };
        // In blocks of any size.
        let expected = vec![(3, "d".to_owned()), (4, "e".to_owned())];
        assert_eq!(rest(vec![vec!["a", "b"], vec!["c", "d"], vec!["e"]], &skip).unwrap(), expected);
        assert_eq!(rest(vec![vec!["a", "b", "c"], vec!["d", "e"]], &skip).unwrap(), expected);
        assert_eq!(rest(vec![vec!["a", "b", "c"]], &skip).unwrap(), []);
        let changed = rest(vec![vec!["a", "x", "c", "d"]], &skip).unwrap_err().to_string();
        assert!(changed.contains("first 3 rows") && changed.contains("--restart"), "{changed}");
        let shorter = rest(vec![vec!["a", "b"]], &skip).unwrap_err().to_string();
        assert!(shorter.contains("has 2 rows") && shorter.contains("--restart"), "{shorter}");
    }
}
