//! The growing output beside the one that was asked for: appended to, checkpointed, gone on with after a kill, and renamed when it is whole.

use super::checkpoint::{Checkpoint, Identity};
use super::reader::Skip;
use super::write::Format;
use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What is told when nothing more can be written.
const KEPT: &str = "what is done is kept; make room and run the same command again to go on";

/// A file that grows under another name. One that holds no row when it is dropped is removed.
pub struct Part {
    out: PathBuf,
    part: PathBuf,
    sidecar: PathBuf,
    file: File,
    state: Checkpoint,
}

/// What `Part::go_on` found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or what may be gone on with; the rows to skip.
    Begun(Skip),
    /// An earlier run has finished, and was ended before it could say so.
    Whole,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

impl Part {
    /// Opens `OUT.part` and takes it for this process; leaves what is in it as it is, unless `restart` says to begin again.
    ///
    /// # Errors
    /// A file that cannot be opened, or that another process writes.
    pub fn open(out: &Path, restart: bool) -> anyhow::Result<Self> {
        let (part, sidecar) = (beside(out, ".part"), beside(out, ".part.json"));
        let cannot = || format!("cannot write {}", part.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&part).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another process is writing {}", part.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        if restart {
            remove(&sidecar)?;
        }
        // Until the checkpoint is read, its rows are counted as there: they must not be removed.
        let rows = u64::from(fs::exists(&sidecar).with_context(cannot)?);
        Ok(Self { out: out.to_owned(), part, sidecar, file, state: Checkpoint { rows, ..Checkpoint::default() } })
    }

    /// Goes on where the checkpoint says, if this is the same run; else begins with the format's head.
    ///
    /// # Errors
    /// A checkpoint of another run, and a part that is not what its checkpoint says.
    pub fn go_on(&mut self, run: Identity, head: &[u8]) -> anyhow::Result<Found> {
        let length = self.file.metadata().with_context(|| format!("cannot read {}", self.part.display()))?.len();
        let Some(checkpoint) = Checkpoint::load(&self.sidecar)? else { return self.begin(run, head) };
        checkpoint.check(&run, &self.part)?;
        if length < checkpoint.written_bytes {
            // The rename was the last step but one.
            if length == 0 && checkpoint.input_ended && self.out.exists() {
                remove(&self.sidecar)?;
                self.state.rows = 0;
                return Ok(Found::Whole);
            }
            bail!(
                "{} has {length} bytes, fewer than the {} that {} speaks of: start over with --restart",
                self.part.display(),
                checkpoint.written_bytes,
                self.sidecar.display()
            );
        }
        // What came after the checkpoint is done again.
        self.file.set_len(checkpoint.written_bytes).with_context(|| format!("cannot write {}", self.part.display()))?;
        let skip = Skip { rows: checkpoint.rows, chain: checkpoint.chain.clone() };
        self.state = Checkpoint { run, ..checkpoint };
        Ok(Found::Begun(skip))
    }

    fn begin(&mut self, run: Identity, head: &[u8]) -> anyhow::Result<Found> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).with_context(|| format!("cannot write {}", self.part.display()))?;
        self.state = Checkpoint { run, ..Checkpoint::default() };
        self.append(head)?;
        Ok(Found::Begun(Skip::default()))
    }

    /// What has been done, this run and those before.
    pub fn state(&self) -> &Checkpoint {
        &self.state
    }

    /// Appends bytes, which count once `commit` has been called.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.state.written_bytes))?;
            self.file.write_all(bytes)
        };
        write().with_context(|| format!("cannot write {} ({KEPT})", self.part.display()))?;
        self.state.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended count: first the bytes, then the word that they are there.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn commit(&mut self, change: impl FnOnce(&mut Checkpoint)) -> anyhow::Result<()> {
        self.file.sync_data().with_context(|| format!("cannot write {} ({KEPT})", self.part.display()))?;
        let mut next = self.state.clone();
        change(&mut next);
        next.save(&self.sidecar).context(KEPT)?;
        self.state = next;
        Ok(())
    }

    /// Makes the output whole and gives it the name that was asked for.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn finish(&mut self, format: &dyn Format) -> anyhow::Result<()> {
        self.commit(|state| state.input_ended = true)?;
        let whole = beside(&self.out, ".part.whole");
        let made = format.finish(&mut self.file, self.state.written_rows, &whole);
        let elsewhere = match made {
            Ok(elsewhere) => elsewhere,
            Err(error) => {
                remove(&whole)?;
                return Err(error.context(format!("cannot finish {} ({KEPT})", self.out.display())));
            }
        };
        let cannot = || format!("cannot give {} its name", self.out.display());
        if elsewhere {
            fs::rename(&whole, &self.out).with_context(cannot)?;
            remove(&self.part)?;
        } else {
            self.file.sync_all().with_context(cannot)?;
            fs::rename(&self.part, &self.out).with_context(cannot)?;
        }
        remove(&self.sidecar)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.state.rows == 0 && !self.sidecar.exists() {
            // Nothing can be done about a left-over that cannot be removed; after `finish` there is none.
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        _ => Ok(()),
    }
}
