//! How many threads compute on the CPU, where each stays, and that they let those pass which talk to clients.

use super::topology::Topology;
use std::path::Path;
use std::sync::OnceLock;

/// How much lower the priority of compute is (a nice value): enough that a thread with a request in hand never waits for a batch to end.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

static COUNT: OnceLock<usize> = OnceLock::new();

/// This machine; `None` where it does not tell.
fn machine() -> Option<&'static Topology> {
    static MACHINE: OnceLock<Option<Topology>> = OnceLock::new();
    MACHINE.get_or_init(|| Topology::read(Path::new("/"))).as_ref()
}

/// How many threads compute if nothing else is said: one for each physical core that the process may use.
pub fn usable() -> usize {
    machine().map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), Topology::threads)
}

/// How many threads compute: what `limit` said, else what the process may use.
pub fn count() -> usize {
    *COUNT.get_or_init(usable)
}

/// Limits our own kernels and Candle's CPU operations, which read their number from the environment once, to `threads` threads. Call it before any other thread exists.
pub fn limit(threads: usize) {
    let _ = COUNT.set(threads);
    // SAFETY: `set_var` is unsound only while another thread reads the environment through C. The one caller is the start of a command, before
    // the async runtime, the device thread or any library thread has been started.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
}

/// Keeps the calling thread, one of `count()` by its number, in its NUMA node. Does nothing where there is but one.
pub fn settle(number: usize) {
    let places = machine().and_then(|machine| machine.places(count()));
    let Some(cpus) = places.and_then(|places| places.get(number).copied()) else { return };
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        // The set has room for 1,024 CPUs; those of larger numbers are left out, and a thread that could be on those alone stays where it is.
        cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpus;
}

/// Lowers the priority of the calling thread, and of every thread that it starts, below that of the threads that answer clients.
pub fn compute_after_answers() {
    // Only Linux has priorities per thread. Refused (it never is, downwards), everything works as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}
