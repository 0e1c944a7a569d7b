//! Deputize.
fn main() {}
