//! One decision, one credential.
use deputize_issuer::decide::Grant;

fn twice(grant: Grant) -> (Grant, Grant) {
    (grant.clone(), grant)
}

fn main() {}
