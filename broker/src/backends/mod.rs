//! What stands behind the traits of the core. Only `assemble` names these.

pub mod embedded;
pub mod key_files;
