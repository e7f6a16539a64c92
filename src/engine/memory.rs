//! Does it fit? What this process may use, from /proc and the cgroup, against what the models and budgets need.

use crate::exec::Need;
use crate::kernels::cgroup::groups;
use crate::network::{DType, LoadError};
use std::path::Path;

/// How much memory the process may use, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub bytes: u64,
    pub source: &'static str,
}

/// What the process takes beside weights, activations and budgets: the program, its threads, its tokenizers, its allocator's spare
/// pages. `benches/load/memory.py` measures it: 53 MiB lay beside MiniLM's weights after a start. While all memory was in large pages, as it
/// still is where the system gives them unasked, it was 87; with a static model 94.
pub const PROCESS_BYTES: u64 = 96 << 20;

/// The room that is left for a model: nothing is refused by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// What the process, its budgets and the models before this one may take.
    pub taken_bytes: u64,
    pub allowance: Option<Allowance>,
}

impl Room {
    /// What the process may use, of which this much is taken beside the process itself.
    pub fn beside(taken_bytes: u64) -> Self {
        Self { taken_bytes: taken_bytes.saturating_add(PROCESS_BYTES), allowance: allowance(Path::new("/")) }
    }

    /// Refuses a model that does not fit.
    ///
    /// # Errors
    /// [`LoadError::Memory`].
    pub fn check(&self, need: Need, dtype: DType) -> Result<(), LoadError> {
        let Some(Allowance { bytes: allowed_bytes, source: source_name }) = self.allowance else { return Ok(()) };
        let [weights_bytes, working_bytes, loading_bytes] = [need.weights, need.working, need.loading].map(|bytes| bytes as u64);
        let taken_bytes = self.taken_bytes;
        match taken_bytes.saturating_add(weights_bytes + working_bytes + loading_bytes) <= allowed_bytes {
            true => Ok(()),
            false => Err(LoadError::Memory { dtype, weights_bytes, working_bytes, loading_bytes, taken_bytes, allowed_bytes, source_name }),
        }
    }
}

/// The tightest of the machine's memory and the limits of the process's cgroup and its parents; `None` where neither can be read (then nothing is refused).
/// `root` is `/`, or a made-up tree in tests.
pub fn allowance(root: &Path) -> Option<Allowance> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let kib: u64 = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
        Some(Allowance { bytes: kib * 1024, source: "the machine" })
    });
    let files = groups(root, "memory").into_iter().flat_map(|group| ["memory.max", "memory.limit_in_bytes"].map(|file| group.join(file)));
    let limits = files.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok());
    let cgroup = limits.min().map(|bytes| Allowance { bytes, source: "the cgroup" });
    [machine, cgroup].into_iter().flatten().min_by_key(|allowance| allowance.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_tightest_limit_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n");
        let machine = tree(&[meminfo]);
        assert_eq!(allowance(machine.path()), Some(Allowance { bytes: 16_000_000 * 1024, source: "the machine" }));
        let cgroup = tree(&[
            meminfo,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(allowance(cgroup.path()), Some(Allowance { bytes: 1_000_000, source: "the cgroup" }));
        let first = tree(&[meminfo, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")]);
        assert_eq!(allowance(first.path()).unwrap().source, "the machine");
        let service = tree(&[
            meminfo,
            ("proc/self/cgroup", "5:cpu,cpuacct:/other\n4:memory,hugetlb:/system.slice/x.service\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes", "3000000\n"),
            ("sys/fs/cgroup/memory/system.slice/x.service/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/other/memory.limit_in_bytes", "1000000\n"),
        ]);
        assert_eq!(allowance(service.path()), Some(Allowance { bytes: 2_000_000, source: "the cgroup" }));
        let parent = service.path().join("sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes");
        std::fs::write(parent, "1500000\n").unwrap();
        assert_eq!(allowance(service.path()).unwrap().bytes, 1_500_000, "a parent binds");
        assert_eq!(allowance(tree(&[]).path()), None);
    }

    #[test]
    fn the_refusal_names_what_is_needed_what_there_is_and_what_helps() {
        let room = |mib: u64| Room { taken_bytes: 100 << 20, allowance: Some(Allowance { bytes: mib << 20, source: "the cgroup" }) };
        let need = Need { weights: 300 << 20, loading: 20 << 20, working: 80 << 20 };
        assert!(room(500).check(need, DType::F32).is_ok() && Room::default().check(need, DType::F32).is_ok());
        let text = room(499).check(need, DType::F32).unwrap_err().to_string();
        for part in [
            "in f32 this model needs 400 MiB (weights 300, activations 80, while loading 20)",
            "beside 100 MiB",
            "the cgroup allows 499 MiB",
            "--dtype",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(Room { taken_bytes: u64::MAX, ..room(1) }.check(need, DType::F32).is_err(), "no sum overflows");
    }
}
