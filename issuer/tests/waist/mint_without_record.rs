//! No record, no credential.
use deputize_issuer::{
    decide::{Grant, ToolCallTerms},
    desk::Desk,
    mint::mint,
};

async fn unrecorded(desk: &Desk, grant: Grant<ToolCallTerms>) {
    let _ = mint(desk, grant).await;
}

fn main() {}
