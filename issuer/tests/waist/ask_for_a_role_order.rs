//! What STS is asked with is made by the mint alone.
use deputize_issuer::{mint::RoleOrder, secret::Secret, templates::RenderedSession};

fn ask<'a>(session: &'a RenderedSession, web_identity: &'a Secret<String>) -> RoleOrder<'a> {
    RoleOrder::new(session, web_identity)
}

fn main() {}
