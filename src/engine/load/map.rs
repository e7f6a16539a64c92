//! A checkpoint's file in memory: mapped, so that only what is being read of it takes memory.

use super::LoadError;
use crate::network::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

struct Map(Mmap);

/// Maps a file.
///
/// # Errors
/// A file that is not there, cannot be read or is empty.
pub fn map(path: &Path) -> Result<Arc<dyn Bytes>, LoadError> {
    let io = |source| LoadError::Io { file: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(LoadError::file(path.display().to_string(), "is empty"));
    }
    // SAFETY: the map is read-only and private to this process. Another process that changes or cuts the file while it is mapped could change
    // the bytes under us or raise SIGBUS; model files are written once, beside, and renamed into place, and what is read here is copied to where
    // it computes and checked before the map is let go.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(Map(map)))
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Bytes for Map {
    fn let_go(&self, range: Range<usize>) {
        // SAFETY: nothing was ever written to this map: pages that are dropped are read from the same file again, with the same bytes.
        let dropped = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // It is a hint: what stays is only memory.
        if let Err(error) = dropped {
            tracing::debug!(%error, "pages of a file stay mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_reads_the_same_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, bytes) = (dir.path().join("file"), (0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        std::fs::write(&path, &bytes).expect("written");
        let map = map(&path).expect("mapped");
        for range in [0..0, 5..6, 1_000..300_000, 0..bytes.len()] {
            assert_eq!((*map).as_ref(), bytes);
            map.let_go(range);
        }
        assert_eq!((*map).as_ref(), bytes);
    }
}
