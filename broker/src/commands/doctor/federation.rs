//! Whether the bundles of foreign trust domains are here, and fresh.

use http::Method;
use serde::Deserialize;

use super::Check;
use crate::{
    commands::{
        admin_socket::AdminSocket,
        exit::{CommandError, Exit},
    },
    federation::{Failure, Held, Status},
};

/// What the broker answers.
#[derive(Deserialize)]
struct Answer {
    federation: Vec<Status>,
}

/// One check for each trust domain of the configuration; none where there are none.
pub(super) async fn examine(broker: &AdminSocket) -> Vec<Check> {
    match ask(broker).await {
        Ok(all) => all.iter().map(check).collect(),
        // That nobody is there was said already.
        Err(error) if error.exit == Exit::Unreachable => Vec::new(),
        Err(error) => vec![Check::bad("foreign trust domains are known", error.message, error.next)],
    }
}

async fn ask(broker: &AdminSocket) -> Result<Vec<Status>, CommandError> {
    let answer = broker.ask(Method::GET, "/admin/federation", None).await?;
    let answer: Answer = serde_json::from_value(answer).map_err(|error| {
        CommandError::failure(
            format!("the broker's answer is not understood: {error}"),
            "use the `deputize` of the broker's version",
        )
    })?;
    Ok(answer.federation)
}

fn check(status: &Status) -> Check {
    let what = format!("the bundle of {} is here and fresh", status.trust_domain);
    let held = status.bundle.as_ref().map_or_else(|| "there is none".to_owned(), in_words);
    match (&status.failure, &status.bundle) {
        (Some(failure), _) => {
            Check::bad(&what, format!("{held}; {}: {}", failure.at, failure.detail), advice(failure, status))
        }
        (None, None) => Check::unknown(&what, held, "its endpoint is being asked: look again in a moment"),
        (None, Some(_)) => Check::good(&what, held),
    }
}

fn in_words(held: &Held) -> String {
    format!(
        "sequence {} from its {}, since {}: {} X.509 and {} JWT authorities",
        held.sequence, held.from, held.since, held.x509_authorities, held.jwt_authorities
    )
}

fn advice(failure: &Failure, status: &Status) -> String {
    let endpoint = status.endpoint.as_deref().unwrap_or("its endpoint");
    match failure.reason.as_str() {
        "address" => {
            format!("{endpoint} is at a private address: `allow_private_addresses: true`, if that is meant")
        }
        "status" => format!("ask `curl -v {endpoint}`; redirects are not followed: configure where they lead"),
        "sequence" => {
            "an older copy is served, or the trust domain began anew: if it did, ask it for its bundle and put \
             that into bundle_file"
                .to_owned()
        }
        "no_bundle" => "add that trust domain to spiffe.federation, with a bundle_file".to_owned(),
        "document" | "media_type" | "too_large" => format!("see what {endpoint} gives: is it this trust domain's?"),
        "unrecorded" => "the audit log takes no more: see the broker's own log".to_owned(),
        // A server that is not known by its certificate is a failure of transport as well.
        _ => format!(
            "is {endpoint} reachable from here, and does it show a certificate that its profile accepts? Where its \
             trust domain replaced all of its authorities meanwhile, put its new bundle into bundle_file"
        ),
    }
}
