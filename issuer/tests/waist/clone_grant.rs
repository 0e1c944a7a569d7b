//! One decision, one credential.
use deputize_issuer::decide::{Grant, ToolCallTerms};

fn twice(grant: Grant<ToolCallTerms>) -> (Grant<ToolCallTerms>, Grant<ToolCallTerms>) {
    (grant.clone(), grant)
}

fn main() {}
