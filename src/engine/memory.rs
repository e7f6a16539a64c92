//! Does it fit? What this process may use, from /proc and the cgroup, against what the models and budgets need.

use std::path::Path;

/// How much memory the process may use, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub bytes: u64,
    pub source: &'static str,
}

/// Weights and budgets do not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "not enough memory: the models and budgets need {} MiB, {source_name} allows {} MiB; serve fewer or smaller models, or lower \
     --max-queue-tokens, --max-batch-tokens or --max-body-bytes",
    needed_bytes >> 20,
    allowed_bytes >> 20
)]
pub struct TooMuch {
    pub needed_bytes: u64,
    pub allowed_bytes: u64,
    pub source_name: &'static str,
}

/// The tighter of the machine's memory and the cgroup's limit; `None` where neither can be read (then nothing is refused).
/// `root` is `/`, or a made-up tree in tests.
pub fn allowance(root: &Path) -> Option<Allowance> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let kib: u64 = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
        Some(Allowance { bytes: kib * 1024, source: "the machine" })
    });
    // Version 2 names our own group in /proc/self/cgroup; limits of its parents bind as well.
    let own = read("proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
    let ancestors = Path::new(&group).ancestors().map(|group| Path::new("sys/fs/cgroup").join(group).join("memory.max"));
    let version_1 = std::iter::once(Path::new("sys/fs/cgroup/memory/memory.limit_in_bytes").to_owned());
    let limits = ancestors.chain(version_1).filter_map(|path| std::fs::read_to_string(root.join(path)).ok()?.trim().parse().ok());
    let cgroup = limits.min().map(|bytes| Allowance { bytes, source: "the cgroup" });
    [machine, cgroup].into_iter().flatten().min_by_key(|allowance| allowance.bytes)
}

/// The size of a model's weight files, those of its modules' folders included, or of its one file. Weights stored in half precision take twice this
/// in f32, those in blocks of 4 bits seven times.
pub fn weights_bytes(model: &Path) -> u64 {
    if let Ok(about) = std::fs::metadata(model)
        && about.is_file()
    {
        return about.len();
    }
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let (folders, mut files): (Vec<_>, Vec<_>) = entries(model).into_iter().partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| entries(folder)));
    let weights = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    weights.filter_map(|path| Some(std::fs::metadata(path).ok()?.len())).sum()
}

/// Refuses what does not fit.
pub fn check(needed_bytes: u64, allowance: Option<Allowance>) -> Result<(), TooMuch> {
    match allowance {
        Some(Allowance { bytes, source }) if needed_bytes > bytes => Err(TooMuch { needed_bytes, allowed_bytes: bytes, source_name: source }),
        _ => Ok(()),
    }
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
        assert_eq!(allowance(tree(&[]).path()), None);
    }

    #[test]
    fn the_refusal_names_both_figures() {
        let allowance = Some(Allowance { bytes: 512 << 20, source: "the cgroup" });
        assert!(check(512 << 20, allowance).is_ok() && check(u64::MAX, None).is_ok());
        let text = check(600 << 20, allowance).unwrap_err().to_string();
        assert!(text.contains("need 600 MiB") && text.contains("the cgroup allows 512 MiB"), "{text}");
    }
}
