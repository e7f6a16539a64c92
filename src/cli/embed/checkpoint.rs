//! What a run has done so far, in a small file beside the growing output, and whether another run may go on from there.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What decides the output's bytes, by name: the input, how it is read, the model, the options.
pub type Identity = BTreeMap<String, String>;

/// The one entry that matters only once a row has been refused.
pub const ON_ERROR: &str = "--on-error";

/// A place in the input to go on from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub run: Identity,
    /// Rows of the input that are done.
    pub rows: u64,
    /// Those of them without a vector.
    pub refused: u64,
    /// Tokens computed for them.
    pub tokens: u64,
    /// Rows of the output.
    pub written_rows: u64,
    /// Bytes of the growing file that count; what lies behind them does not.
    pub written_bytes: u64,
    /// The input's digest up to there.
    pub chain: String,
    /// True once the input has ended and only the finishing is left.
    pub input_ended: bool,
}

impl Checkpoint {
    /// The checkpoint at `path`; `None` if there is none.
    ///
    /// # Errors
    /// A file that is not a checkpoint.
    pub fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let checkpoint = serde_json::from_slice(&bytes);
        checkpoint.map(Some).with_context(|| format!("{} is not a checkpoint of this version: start over with --restart", path.display()))
    }

    /// Puts it in place of the one before, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        let next = PathBuf::from(next);
        let write = || {
            let mut file = File::create(&next)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_data()?;
            fs::rename(&next, path)
        };
        let written = write();
        if written.is_err() {
            // Half a checkpoint is of no use; the one before is still there.
            let _ = fs::remove_file(&next);
        }
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Refuses to go on with another input, model or option than the run before.
    ///
    /// # Errors
    /// A sentence that says which have changed, and what to do.
    pub fn check(&self, now: &Identity, part: &Path) -> anyhow::Result<()> {
        let names = self.run.keys().chain(now.keys().filter(|name| !self.run.contains_key(*name)));
        let said = |run: &Identity, name: &str| run.get(name).cloned().unwrap_or_else(|| "not known".to_owned());
        let changed = names.filter(|name| self.run.get(*name) != now.get(*name) && (*name != ON_ERROR || self.refused > 0));
        let changed: Vec<String> = changed.map(|name| format!("{name}: {} before, {} now", said(&self.run, name), said(now, name))).collect();
        if !changed.is_empty() {
            bail!(
                "{} holds {} rows of another run ({}). Say what was said then to go on with it, or --restart to begin again",
                part.display(),
                self.rows,
                changed.join("; ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(entries: &[(&str, &str)]) -> Identity {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_has_changed_is_named() {
        let run = identity(&[("--truncate", "none"), ("model", "m"), (ON_ERROR, "fail")]);
        let mut checkpoint = Checkpoint { run, rows: 7, ..Checkpoint::default() };
        let same = identity(&[("--truncate", "none"), ("model", "m"), (ON_ERROR, "skip")]);
        checkpoint.check(&same, Path::new("out.part")).unwrap();
        checkpoint.refused = 1;
        let text = checkpoint.check(&same, Path::new("out.part")).unwrap_err().to_string();
        assert!(text.contains("--on-error: fail before, skip now") && text.contains("7 rows"), "{text}");
        let other = identity(&[("--truncate", "end"), ("dtype", "f32"), (ON_ERROR, "fail")]);
        let text = checkpoint.check(&other, Path::new("out.part")).unwrap_err().to_string();
        for part in ["out.part", "--truncate: none before, end now", "model: m before, not known now", "dtype: not known before", "--restart"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_checkpoint_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.part.json");
        assert_eq!(Checkpoint::load(&path).unwrap(), None);
        for rows in [1, 2] {
            let checkpoint = Checkpoint { rows, run: identity(&[("a", "b")]), ..Checkpoint::default() };
            checkpoint.save(&path).unwrap();
            assert_eq!(Checkpoint::load(&path).unwrap(), Some(checkpoint));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", Checkpoint::load(&path).unwrap_err()).contains("--restart"));
        let nowhere = Checkpoint::default().save(&dir.path().join("no/out.part.json"));
        assert!(nowhere.is_err());
    }
}
