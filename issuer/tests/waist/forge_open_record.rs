//! An open record is made by `open_record` alone.
use deputize_issuer::{decide::Grant, record::OpenRecord};

fn forge(grant: Grant) -> OpenRecord {
    OpenRecord { terms: grant, index: 0 }
}

fn main() {}
