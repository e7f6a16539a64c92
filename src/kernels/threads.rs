//! How many threads compute on the CPU, and that they let those pass which talk to clients.

use std::sync::OnceLock;

/// How much lower the priority of compute is (a nice value): enough that a thread with a request in hand never waits for a batch to end.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

static COUNT: OnceLock<usize> = OnceLock::new();

/// How many threads compute: what `limit` said, else what the process may use.
pub fn count() -> usize {
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Limits our own kernels and Candle's CPU operations, which read their number from the environment once, to `threads` threads. Call it before any other thread exists.
pub fn limit(threads: usize) {
    let _ = COUNT.set(threads);
    // SAFETY: `set_var` is unsound only while another thread reads the environment through C. The one caller is the start of a command, before
    // the async runtime, the device thread or any library thread has been started.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
}

/// Lowers the priority of the calling thread, and of every thread that it starts, below that of the threads that answer clients.
pub fn compute_after_answers() {
    // Only Linux has priorities per thread. Refused (it never is, downwards), everything works as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}
