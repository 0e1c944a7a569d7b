//! No record, no session of a role.
use deputize_issuer::{
    decide::{Grant, RoleTerms},
    desk::Desk,
    mint::Mint,
};

async fn unrecorded(desk: &Desk, grant: Grant<RoleTerms>) {
    let _ = RoleTerms::mint(grant, desk).await;
}

fn main() {}
