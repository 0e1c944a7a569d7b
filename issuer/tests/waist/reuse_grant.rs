//! One decision, one record.
use deputize_issuer::{
    decide::{Grant, ToolCallTerms},
    desk::Desk,
    record::open_record,
};

async fn twice(desk: &Desk, grant: Grant<ToolCallTerms>) {
    let _first = open_record(desk, grant).await;
    let _second = open_record(desk, grant).await;
}

fn main() {}
