//! One record, one credential.
use deputize_issuer::{decide::ToolCallTerms, record::OpenRecord};

type Open = OpenRecord<ToolCallTerms>;

fn twice(record: Open) -> (Open, Open) {
    (record.clone(), record)
}

fn main() {}
