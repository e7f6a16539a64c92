//! Machines that are made up: a laptop, a server with two sockets, one with eight nodes; masks and quotas on them.

use super::*;

/// A tree like the kernel's.
struct Machine(tempfile::TempDir);

impl Machine {
    /// `nodes` of `cores` each with two CPUs: the first ones of all cores are numbered first, as they usually are.
    fn new(nodes: usize, cores: usize, allowed: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let all = nodes * cores;
        for cpu in 0..2 * all {
            machine.write(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{},{}\n", cpu % all, cpu % all + all));
        }
        for node in 0..nodes {
            let first = node * cores;
            let cpus = format!("{}-{},{}-{}\n", first, first + cores - 1, first + all, first + all + cores - 1);
            machine.write(&format!("sys/devices/system/node/node{node}/cpulist"), &cpus);
        }
        machine.write("sys/devices/system/node/possible", "0-7\n");
        machine.write("proc/self/status", &format!("Name:\tx\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n"));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self) -> Topology {
        Topology::read(self.0.path()).unwrap()
    }
}

/// How many threads stay in each node, by its first CPU.
fn counts(topology: &Topology, threads: usize) -> Vec<(usize, usize)> {
    let mut counts = BTreeMap::new();
    for cpus in topology.places(threads).unwrap() {
        *counts.entry(*cpus.first().unwrap()).or_default() += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn one_node_leaves_the_choice_to_the_system() {
    let laptop = Machine::new(1, 6, "0-11").read();
    assert_eq!((laptop.threads(), laptop.places(6)), (6, None));
    // Two CPUs of one core are one core.
    assert_eq!(Machine::new(1, 6, "1,7").read().threads(), 1);
    assert_eq!(Machine::new(1, 6, "1,2,7").read().threads(), 2);
}

#[test]
fn two_nodes_share_the_threads_that_one_cannot_hold() {
    let server = Machine::new(2, 16, "0-63").read();
    assert_eq!(server.threads(), 32);
    assert_eq!(counts(&server, 32), [(0, 16), (16, 16)]);
    assert_eq!(counts(&server, 24), [(0, 12), (16, 12)]);
    assert_eq!(counts(&server, 64), [(0, 32), (16, 32)]);
    assert_eq!(counts(&server, 16), [(0, 16)]);
    let places = server.places(1).unwrap();
    assert_eq!(places, [&(0..16).chain(32..48).collect::<Cpus>()]);
}

#[test]
fn a_mask_makes_nodes_unequal_and_the_larger_one_is_filled_first() {
    let masked = Machine::new(2, 16, "12-31").read();
    assert_eq!(masked.threads(), 20);
    assert_eq!(counts(&masked, 16), [(16, 16)]);
    assert_eq!(counts(&masked, 20), [(12, 4), (16, 16)]);
    assert_eq!(Machine::new(2, 16, "0-15").read().places(16), None);
}

#[test]
fn eight_nodes_get_their_parts() {
    let large = Machine::new(8, 12, "0-191").read();
    assert_eq!(large.threads(), 96);
    assert_eq!(counts(&large, 96), (0..8).map(|node| (node * 12, 12)).collect::<Vec<_>>());
    assert_eq!(counts(&large, 12), [(0, 12)]);
    for threads in 13..200 {
        let counts = counts(&large, threads);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), threads);
        let (least, most) = (counts.iter().map(|(_, count)| count).min().unwrap(), counts.iter().map(|(_, count)| count).max().unwrap());
        assert!(counts.len() == 8 && most - least <= 1, "{threads} threads: {counts:?}");
    }
}

#[test]
fn no_more_threads_than_the_quota_pays_for() {
    let quota = |path: &str, text: &str| {
        let machine = Machine::new(2, 4, "0-15");
        machine.write("proc/self/cgroup", "1:cpu:/x\n0::/a/b\n");
        machine.write(path, text);
        machine.read().threads()
    };
    assert_eq!(quota("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"), 8);
    assert_eq!(quota("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n"), 2);
    assert_eq!(quota("sys/fs/cgroup/a/cpu.max", "300000 100000\n"), 3);
    assert_eq!(quota("sys/fs/cgroup/cpu.max", "50000 100000\n"), 1);
    assert_eq!(quota("sys/fs/cgroup/a/cpu.max", "nonsense\n"), 8);
    let version_1 = Machine::new(1, 4, "0-7");
    version_1.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    version_1.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    assert_eq!(version_1.read().threads(), 2);
    version_1.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    assert_eq!(version_1.read().threads(), 4);
    version_1.write("proc/self/cgroup", "7:cpuacct,cpu:/system.slice/x.service\n0::/\n");
    for (group, quota) in [("system.slice", "300000\n"), ("system.slice/x.service", "-1\n"), ("other", "100000\n")] {
        version_1.write(&format!("sys/fs/cgroup/cpu/{group}/cpu.cfs_period_us"), "100000\n");
        version_1.write(&format!("sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us"), quota);
    }
    assert_eq!(version_1.read().threads(), 3, "a parent binds");
    version_1.write("sys/fs/cgroup/cpu/system.slice/x.service/cpu.cfs_quota_us", "200000\n");
    assert_eq!(version_1.read().threads(), 2);
}

#[test]
fn where_the_system_does_not_tell_there_is_no_answer() {
    let machine = Machine::new(1, 1, "");
    assert_eq!(machine.read().threads(), 1);
    assert_eq!(Topology::read(&machine.0.path().join("nowhere")), None);
    machine.write("proc/self/status", "Cpus_allowed_list:\t0-many\n");
    assert_eq!(Topology::read(machine.0.path()), None);
    machine.write("proc/self/status", "Cpus_allowed_list:\t7-9\n");
    assert_eq!(Topology::read(machine.0.path()), None, "CPUs that are not in the tree");
}
