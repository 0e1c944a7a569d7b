//! One record, one credential.
use deputize_issuer::{decide::RoleTerms, desk::Desk, mint::mint, record::OpenRecord};

async fn twice(desk: &Desk, record: OpenRecord<RoleTerms>) {
    let _first = mint(desk, record).await;
    let _second = mint(desk, record).await;
}

fn main() {}
