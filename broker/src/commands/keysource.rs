//! Public keys for a look at a token: from a file, a URL, or the metadata of an issuer.

use deputize_call::keys::KeySet;
use serde_json::Value;
use std::path::Path;
use url::Url;

use super::{exit::CommandError, input};
use crate::backends::fetch::{Fetcher, Reach};

/// From a file or a URL.
///
/// # Errors
/// If they cannot be had, or are none.
pub async fn from_place(place: &str) -> Result<KeySet, CommandError> {
    let document = match Url::parse(place) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => fetch(&url).await?,
        _ => input::file_text(Path::new(place))?.as_bytes().to_vec(),
    };
    keys(&document, place)
}

/// From the key set that an issuer's metadata names (RFC 8414 §3, OpenID Connect Discovery §4).
///
/// # Errors
/// If it has no metadata, it is another's, or its keys cannot be had.
pub async fn of_issuer(url: &Url, issuer: &str) -> Result<KeySet, CommandError> {
    let mut last = None;
    for address in metadata_addresses(url, issuer) {
        match fetch(&address).await {
            Ok(document) => {
                let metadata: Value = serde_json::from_slice(&document).unwrap_or_default();
                // RFC 8414 §3.3: the issuer must be the one that was asked for.
                if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
                    return Err(CommandError::failure(
                        format!("{address}: metadata of another issuer"),
                        "spell --issuer as `iss`",
                    ));
                }
                let place = metadata.get("jwks_uri").and_then(Value::as_str).unwrap_or_default();
                let place = Url::parse(place)
                    .map_err(|_| CommandError::failure(format!("{address}: no jwks_uri"), "give --jwks"))?;
                return keys(&fetch(&place).await?, place.as_str());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        CommandError::usage("--issuer: not a URL with a host", "give the `iss` of the token")
    }))
}

fn metadata_addresses(url: &Url, issuer: &str) -> Vec<Url> {
    let openid = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    // RFC 8414 §3.1: inserted between host and path.
    let mut oauth = url.clone();
    oauth.set_path(&format!("/.well-known/oauth-authorization-server{}", url.path().trim_end_matches('/')));
    [Some(oauth), Url::parse(&openid).ok()].into_iter().flatten().collect()
}

async fn fetch(url: &Url) -> Result<Vec<u8>, CommandError> {
    // Whoever runs this chose the address, so it may be private; plain http stays a matter of loopback.
    let reach = Reach { allow_private_addresses: true, allow_http: url.scheme() == "http", ca_file: None };
    let unreachable = |error: &dyn std::fmt::Display| {
        CommandError::unreachable(
            format!("{url}: {error}"),
            "check the address and the network, or save the key set and give --jwks FILE",
        )
    };
    let fetcher = Fetcher::new(reach).map_err(|error| unreachable(&error))?;
    fetcher.get_json(url).await.map(|fetched| fetched.body).map_err(|error| unreachable(&error))
}

fn keys(document: &[u8], place: &str) -> Result<KeySet, CommandError> {
    KeySet::from_jwks(document).map_err(|error| {
        CommandError::failure(format!("{place}: {error}"), "give a JWKS with the issuer's public keys")
    })
}
