//! One record, one credential.
use deputize_issuer::record::OpenRecord;

fn twice(record: OpenRecord) -> (OpenRecord, OpenRecord) {
    (record.clone(), record)
}

fn main() {}
