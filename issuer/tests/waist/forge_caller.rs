//! A caller is made by `authenticate` alone.
use deputize_issuer::{authenticate::Caller, client::Client};
use std::sync::Arc;

fn forge(client: Arc<Client>) -> Caller {
    Caller { client, method: "none", jkt: None, spent: None }
}

fn main() {}
