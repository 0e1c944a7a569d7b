//! Deputize.

mod dev;

fn main() {}
