//! argv -> configuration -> command; exit code. Nothing else.

fn main() {}
