//! No record, no JWT-SVID: neither a grant nor what it lays down is enough.
use deputize_issuer::{
    decide::{Grant, JwtSvidTerms},
    desk::Desk,
    mint::Mint,
};

async fn of_a_grant(desk: &Desk, grant: Grant<JwtSvidTerms>) {
    let _ = JwtSvidTerms::mint(grant, desk).await;
}

async fn of_terms(desk: &Desk, terms: JwtSvidTerms) {
    let _ = JwtSvidTerms::mint(terms, desk).await;
}

fn main() {}
