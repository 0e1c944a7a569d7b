//! No record, no X.509-SVID: neither a grant nor what it lays down is enough.
use deputize_issuer::{
    decide::{Grant, X509SvidTerms},
    desk::Desk,
    mint::Mint,
};

async fn of_a_grant(desk: &Desk, grant: Grant<X509SvidTerms>) {
    let _ = X509SvidTerms::mint(grant, desk).await;
}

async fn of_terms(desk: &Desk, terms: X509SvidTerms) {
    let _ = X509SvidTerms::mint(terms, desk).await;
}

fn main() {}
