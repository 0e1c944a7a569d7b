//! A caller is made by `authenticate` alone.
use deputize_issuer::{authenticate::Caller, client::Client};
use std::sync::Arc;
use uuid::Uuid;

fn forge(decision_id: Uuid, client: Arc<Client>) -> Caller {
    Caller { decision_id, client, method: "none", held: [None, None], spent: None, attested: None }
}

fn main() {}
