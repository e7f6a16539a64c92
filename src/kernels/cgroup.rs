//! The control groups that bind this process: its own and all of their parents, in both versions, wherever they are mounted.

use std::path::{Path, PathBuf};

/// The folders of the groups that limit this process's `controller` (`memory`, `cpu`), of version 2 and of version 1, each from the process's own up to
/// the topmost that can be seen. `root` is `/`, or a made-up tree in tests.
///
/// Files of the two versions have different names: whoever reads tries both in every folder.
pub fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut folders = Vec::new();
    for controller in ["", controller] {
        let group = group(&own, controller).unwrap_or("/");
        let usual = format!("/sys/fs/cgroup/{controller}");
        let mut places = mounted(&mounts, controller);
        if places.is_empty() {
            places.push(("/", &usual));
        }
        for (top, place) in places {
            // A container sees the tree from its own group on, but may be told its path from the machine's root. What does not lie below the top is
            // not to be seen: then the top binds.
            let below = Path::new(group).strip_prefix(top).unwrap_or(Path::new(""));
            let place = root.join(place.trim_start_matches('/'));
            folders.extend(below.ancestors().map(|group| place.join(group)));
        }
    }
    folders
}

/// The process's group in the hierarchy with this controller; version 2, which names none, is the empty one. Lines are `4:cpu,cpuacct:/system.slice/x.service`.
fn group<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(group)
    })
}

/// The topmost group that can be seen of the hierarchy with this controller, or of version 2, and where it is mounted.
fn mounted<'a>(mounts: &'a str, controller: &str) -> Vec<(&'a str, &'a str)> {
    let of = |line: &'a str| {
        // `35 31 0:29 TOP PLACE rw,relatime shared:9 - cgroup cgroup rw,memory`
        let (place, system) = line.split_once(" - ")?;
        let (mut place, mut system) = (place.split(' ').skip(3), system.split(' '));
        let (kind, options) = (system.next()?, system.nth(1)?);
        let wanted = match controller {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        if wanted { place.next().zip(place.next()) } else { None }
    };
    mounts.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What binds a process whose two files say this, as paths below the root.
    fn bound(cgroup: &str, mountinfo: &str, controller: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(dir.path().join("proc/self/cgroup"), cgroup).unwrap();
        std::fs::write(dir.path().join("proc/self/mountinfo"), mountinfo).unwrap();
        let below = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string().trim_end_matches('/').to_owned();
        groups(dir.path(), controller).into_iter().map(below).collect()
    }

    #[test]
    fn every_parent_binds_in_both_versions() {
        let own = "9:name=systemd:/x\n4:cpu,memory:/system.slice/x.service\n3:cpuset:/y\n0::/a/b\n";
        let wanted = [
            "sys/fs/cgroup/a/b",
            "sys/fs/cgroup/a",
            "sys/fs/cgroup",
            "sys/fs/cgroup/memory/system.slice/x.service",
            "sys/fs/cgroup/memory/system.slice",
            "sys/fs/cgroup/memory",
        ];
        assert_eq!(bound(own, "", "memory"), wanted);
        assert_eq!(bound("", "", "cpu"), ["sys/fs/cgroup", "sys/fs/cgroup/cpu"], "where nothing is told, the usual places");
    }

    #[test]
    fn groups_are_looked_for_where_they_are_mounted() {
        let mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            35 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            36 31 0:33 /docker/1 /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let own = "5:cpuacct,cpu:/x\n4:memory:/docker/1/inner\n0::/\n";
        assert_eq!(bound(own, mounts, "cpu"), ["sys/fs/cgroup/unified", "sys/fs/cgroup/cpu,cpuacct/x", "sys/fs/cgroup/cpu,cpuacct"]);
        // A container that is told its path from the machine's root.
        assert_eq!(bound(own, mounts, "memory"), ["sys/fs/cgroup/unified", "sys/fs/cgroup/memory/inner", "sys/fs/cgroup/memory"]);
        // One that is told a path it cannot see.
        assert_eq!(bound("4:memory:/other\n0::/\n", mounts, "memory"), ["sys/fs/cgroup/unified", "sys/fs/cgroup/memory"]);
    }
}
