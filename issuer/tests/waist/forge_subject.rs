//! A subject is made by `verify_subject` alone.
use deputize_call::claims::Actor;
use deputize_issuer::{person::Person, verify_subject::Subject};
use std::sync::Arc;

fn forge(person: Arc<Person>, act: Actor) -> Subject {
    Subject { person, act, expires_at: u64::MAX, parent: None, bearer: None }
}

fn main() {}
