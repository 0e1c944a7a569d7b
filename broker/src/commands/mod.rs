//! One file for each command of the program.

pub mod demo;
pub mod dev;
pub mod serve;
