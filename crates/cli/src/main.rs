//! The `tallow` command.
fn main() {}
