//! One record, one credential.
use deputize_issuer::{keys::KeySource, mint::mint, record::OpenRecord};

fn twice(keys: &KeySource, record: OpenRecord) {
    let _first = mint(keys, record);
    let _second = mint(keys, record);
}

fn main() {}
