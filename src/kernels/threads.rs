//! How many threads Candle's own CPU operations may use. Candle reads the number from the environment, once.

/// Limits Candle to `threads` threads. Call it before any other thread exists.
pub fn limit(threads: usize) {
    // SAFETY: `set_var` is unsound only while another thread reads the environment through C. The one caller is the start of a command, before
    // the async runtime, the device thread or any library thread has been started.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
}
