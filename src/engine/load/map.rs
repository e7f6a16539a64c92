//! A checkpoint's file in memory: mapped, so that only what is being read of it takes memory.

use super::LoadError;
use crate::network::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

struct Map(Mmap);

/// When a page is read, the system maps those around it as well: at most as many as one large page holds.
const AROUND_BYTES: usize = 2 << 20;

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
        // What came with these bytes goes with them: of a model that is read piece by piece, the edges of the pieces would stay.
        let (start, end) = (range.start.saturating_sub(AROUND_BYTES), range.end.saturating_add(AROUND_BYTES).min(self.0.len()));
        // SAFETY: nothing was ever written to this map: pages that are dropped are read from the same file again, with the same bytes.
        let dropped = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end.saturating_sub(start)) };
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

    /// What of a map is resident, by the account that Linux gives: what is let go there, other systems keep as they like.
    #[cfg(target_os = "linux")]
    fn resident_bytes(map: &dyn Bytes) -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("the system's account");
        let first = format!("{:x}-", map.as_ref().as_ptr().addr());
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&first)).filter_map(|line| line.strip_prefix("Rss:"));
        let kib: usize = lines.next().and_then(|rss| rss.trim().strip_suffix(" kB")?.parse().ok()).expect("the map's line");
        kib * 1024
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nothing_stays_of_a_file_that_was_read_piece_by_piece() {
        const PIECE_BYTES: usize = 100_000;
        // Shorter than a large page: of a file that is mapped in those, each is let go whole.
        let dir = tempfile::tempdir().expect("a folder");
        let (path, bytes) = (dir.path().join("file"), vec![7u8; 3 << 19]);
        std::fs::write(&path, &bytes).expect("written");
        let map = map(&path).expect("mapped");
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        assert_eq!(sum((*map).as_ref()), 7 * bytes.len());
        assert!(resident_bytes(&*map) > 0);
        map.let_go(0..bytes.len());
        // From the front, from the back, and each second piece: as tensors lie in a file and are read in another order.
        let pieces: Vec<_> = (0..bytes.len()).step_by(PIECE_BYTES).map(|at| at..(at + PIECE_BYTES).min(bytes.len())).collect();
        let (even, odd) = (pieces.iter().step_by(2), pieces.iter().skip(1).step_by(2));
        for range in pieces.iter().chain(pieces.iter().rev()).chain(even).chain(odd) {
            assert_eq!(sum(&(*map).as_ref()[range.clone()]), 7 * range.len());
            map.let_go(range.clone());
            assert_eq!(resident_bytes(&*map), 0);
        }
    }
}
