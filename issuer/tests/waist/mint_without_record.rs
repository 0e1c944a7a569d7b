//! No record, no credential.
use deputize_issuer::{decide::Grant, keys::KeySource, mint::mint};

fn unrecorded(keys: &KeySource, grant: Grant) {
    let _ = mint(keys, grant);
}

fn main() {}
