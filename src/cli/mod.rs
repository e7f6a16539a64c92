//! One file per command, with its flags.

pub mod models;
pub mod pull;
