//! An open record is made by `open_record` alone.
use deputize_issuer::{decide::RoleTerms, record::OpenRecord};

fn forge(terms: RoleTerms) -> OpenRecord<RoleTerms> {
    OpenRecord { terms, index: 0 }
}

fn main() {}
