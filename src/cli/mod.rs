//! One file per command, each with its flags.

pub mod bench;
pub mod embed;
pub mod health;
