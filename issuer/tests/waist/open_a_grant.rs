//! What a grant holds is for the record alone.
use deputize_issuer::decide::Grant;

fn look(grant: Grant) {
    let _terms = grant.into_terms();
}

fn main() {}
