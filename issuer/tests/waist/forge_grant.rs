//! A grant is made by `decide` alone.
use deputize_issuer::decide::{Grant, ToolCallTerms};

fn forge(terms: ToolCallTerms) -> Grant<ToolCallTerms> {
    Grant { terms }
}

fn main() {}
