//! The processor's own operations. They stand in a crate of their own, so that a test build optimises them and compiles the rest quickly.

use super::threads;
use std::sync::OnceLock;
use vecmill_host_kernels::pool::Team;
pub use vecmill_host_kernels::{Act, Cpu, Element, Level, attention, follow, gemm, norm, operand, pack, pool, rope};

/// The process's own team, of as many threads as `threads::limit` said (or as the process may use), started when it is first asked for: by the thread
/// that will work along, which stays in its place as the others do.
pub fn team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(|| {
        threads::settle(0);
        Team::settled(threads::count(), threads::settle)
    })
}
