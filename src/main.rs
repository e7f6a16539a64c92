//! argv -> configuration -> command; exit code. Nothing else.

/// Short-lived buffers of many sizes from many threads: the system's allocator keeps what it should give back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    vecmill::cli::main(&vecmill::config::Env::of_process())
}
