//! What a grant holds is for the record alone.
use deputize_issuer::decide::{Grant, ToolCallTerms};

fn look(grant: Grant<ToolCallTerms>) {
    let _terms = grant.into_terms();
}

fn main() {}
