//! What STS is asked with is made by the mint alone.
use deputize_issuer::{mint::RoleOrder, secret::Secret, templates::RenderedSession};

fn forge<'a>(session: &'a RenderedSession, web_identity: &'a Secret<String>) -> RoleOrder<'a> {
    RoleOrder { session, web_identity }
}

fn main() {}
