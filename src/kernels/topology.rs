//! Which cores this process may use and in which NUMA node each lies: from the kernel's tree, the process's mask and the cgroup's quota.
//!
//! A core computes no faster with two threads on it, so there is one for each physical core. On a machine with several nodes each thread stays in one,
//! so that what it has in memory stays near; within a node the system chooses the core.

use super::cgroup::groups;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A set of logical CPUs, by the system's numbers.
pub type Cpus = BTreeSet<usize>;

/// What this process may compute on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// For each node that it may use, in the system's order.
    nodes: Vec<Node>,
    /// The cgroup's share of time, in whole CPUs.
    quota: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Node {
    cores: usize,
    cpus: Cpus,
}

impl Topology {
    /// Reads it; `root` is `/`, or a made-up tree in tests. `None` where the system does not tell: not Linux, or no `/proc` or `/sys`.
    pub fn read(root: &Path) -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let status = read("proc/self/status")?;
        let allowed = list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
        let mut nodes: BTreeMap<usize, (Cpus, Cpus)> = BTreeMap::new();
        let homes = homes(root);
        for cpu in allowed {
            let siblings = read(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"))?;
            // A core goes by its first CPU, whether or not that one is allowed.
            let core = *list(&siblings)?.first()?;
            let (cores, cpus) = nodes.entry(homes.get(&cpu).copied().unwrap_or(0)).or_default();
            cores.insert(core);
            cpus.insert(cpu);
        }
        let nodes = nodes.into_values().map(|(cores, cpus)| Node { cores: cores.len(), cpus }).collect();
        Some(Self { nodes, quota: quota(root) })
    }

    /// How many threads compute where nothing else is said: the physical cores, but no more than the quota pays for.
    pub fn threads(&self) -> usize {
        self.cores().min(self.quota.unwrap_or(usize::MAX)).max(1)
    }

    fn cores(&self) -> usize {
        self.nodes.iter().map(|node| node.cores).sum()
    }

    /// The CPUs that each of so many threads is to stay on. `None` where there is nothing to choose: one node.
    ///
    /// All stay in one node if its cores suffice; else each node gets its part of them.
    pub fn places(&self, threads: usize) -> Option<Vec<&Cpus>> {
        if self.nodes.len() < 2 {
            return None;
        }
        let largest = self.nodes.iter().rev().max_by_key(|node| node.cores)?;
        if threads <= largest.cores {
            return Some(vec![&largest.cpus; threads]);
        }
        let all = self.cores();
        let mut before = 0;
        let parts = self.nodes.iter().map(|node| {
            // Rounded where the node's cores begin and end among all, so that the parts add up.
            let part = |cores: usize| cores * threads / all;
            let own = part(before + node.cores) - part(before);
            before += node.cores;
            std::iter::repeat_n(&node.cpus, own)
        });
        Some(parts.flatten().collect())
    }
}

/// The node of each CPU.
fn homes(root: &Path) -> BTreeMap<usize, usize> {
    let entries = std::fs::read_dir(root.join("sys/devices/system/node")).into_iter().flatten().flatten();
    let nodes = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((number, list(&std::fs::read_to_string(entry.path().join("cpulist")).ok()?)?))
    });
    nodes.flat_map(|(number, cpus)| cpus.into_iter().map(move |cpu| (cpu, number))).collect()
}

/// The tightest quota of the process's cgroup and its parents, in whole CPUs and at least one.
fn quota(root: &Path) -> Option<usize> {
    let limit = |group: PathBuf| {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
        let version_1 = || Some(format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()));
        in_cpus(&read("cpu.max").or_else(version_1)?)
    };
    groups(root, "cpu").into_iter().filter_map(limit).min()
}

/// `200000 100000` is two CPUs; `max 100000` and `-1 100000` are no limit.
fn in_cpus(limit: &str) -> Option<usize> {
    let (quota, period) = limit.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    Some(quota.checked_div(period)?.max(1))
}

/// `0-3,8` as a set.
fn list(text: &str) -> Option<Cpus> {
    let mut cpus = Cpus::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
