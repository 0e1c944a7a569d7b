//! The checks, in the order in which the broker makes them. The verdict is the broker's own code's; these say why.

use deputize_call::{
    json::Object,
    jws::{self, EmbeddedKey, JwsError, UnverifiedJws},
};
use deputize_issuer::{
    client::{AcceptedBearer, Client},
    provider::{Provider, ProviderKeys, Providers, SubjectTokenType, UserTokenError, VerifiedUserToken},
};
use serde_json::Value;
use url::Url;

use super::Check;
use crate::{
    backends::fetch::{Fetcher, Reach},
    commands::{explain::what_to_do, moment},
    config::resolved::Resolved,
};

/// A token under examination, and what it is examined with.
pub(super) struct Patient<'a> {
    pub(super) token: &'a str,
    pub(super) resolved: &'a Resolved,
    pub(super) providers: &'a Providers,
    pub(super) keys: &'a dyn ProviderKeys,
    pub(super) client: Option<&'a str>,
    pub(super) now: u64,
}

impl Patient<'_> {
    /// Examines it; stops where nothing further can be known.
    pub(super) async fn examine(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if self.token.split('.').count() == 5 {
            checks.push(self.encrypted());
        } else {
            match jws::parse(self.token, EmbeddedKey::Refused) {
                Err(error) => return vec![malformed(&error)],
                Ok(jws) => {
                    checks
                        .push(Check::good("form", format!("a JWT signed with {}", jws.header.alg.as_str())));
                    let Some(provider) = self.issuer(&jws.claims, &mut checks) else { return checks };
                    checks.push(self.signature(provider, &jws).await);
                    checks.push(self.times(provider, &jws.claims));
                    checks.push(self.person(provider, &jws.claims).await);
                }
            }
        }
        self.clients(&mut checks).await;
        checks
    }

    fn encrypted(&self) -> Check {
        if self.resolved.jwe_key_files.is_empty() {
            let next = "list the private key that it was encrypted to under jwe_key_files";
            return Check::bad("form", "an encrypted token, and no key to decrypt it", next);
        }
        Check::good("form", "an encrypted token; what is inside is verified below")
    }

    fn issuer(&self, claims: &Object, checks: &mut Vec<Check>) -> Option<&Provider> {
        let iss = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let known = || self.resolved.providers.iter().map(|upstream| &upstream.provider);
        if let Some(provider) = known().find(|provider| provider.issuer == iss) {
            checks.push(Check::good("issuer", format!("{iss}, trusted for tenant {}", provider.tenant)));
            return Some(provider);
        }
        // Issuers are compared byte by byte (OpenID Connect Discovery §4.3): a slash too many makes another one.
        let near = known().find(|provider| strsim::damerau_levenshtein(&provider.issuer, iss) <= 3);
        checks.push(match near {
            Some(near) => Check::bad(
                "issuer",
                format!("{iss} is not configured; {} is", near.issuer),
                format!("spell issuer in identity_providers exactly so: {iss}"),
            ),
            None => {
                Check::bad("issuer", format!("{iss} is not configured"), what_to_do("issuer_not_trusted"))
            }
        });
        None
    }

    async fn signature(&self, provider: &Provider, jws: &UnverifiedJws<'_>) -> Check {
        if !provider.algorithms.contains(&jws.header.alg) {
            let allowed: Vec<&str> = provider.algorithms.iter().map(|alg| alg.as_str()).collect();
            return Check::bad(
                "signature",
                format!("{} is not accepted from this issuer", jws.header.alg.as_str()),
                format!("let it sign with {}", allowed.join(", ")),
            );
        }
        let Ok(mut known) = self.keys.keys(&provider.issuer).await else {
            return self.unreachable(provider).await;
        };
        if known.keys.find(jws).is_err() {
            let newer = self.keys.keys_for_unknown_kid(&provider.issuer, known.generation).await;
            let Ok(newer) = newer else { return self.unreachable(provider).await };
            known = newer;
        }
        let kid = jws.header.kid.as_deref().unwrap_or("none");
        match known.keys.verify(jws) {
            Ok(()) => Check::good("signature", format!("by key {kid} of the issuer")),
            Err(JwsError::UnknownKey) => {
                let published: Vec<&str> = known.keys.iter().filter_map(|key| key.kid()).collect();
                Check::bad(
                    "signature",
                    format!(
                        "key {kid} is not among those that the issuer publishes ({})",
                        published.join(", ")
                    ),
                    "get a fresh token; it may be older than the last rotation, or of another environment",
                )
            }
            Err(error) => Check::bad(
                "signature",
                error.to_string(),
                "the token was changed on its way, or does not come from this issuer",
            ),
        }
    }

    /// The keys could not be had: asks once more, to say what stands in the way.
    async fn unreachable(&self, provider: &Provider) -> Check {
        let place = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
        let upstream =
            self.resolved.providers.iter().find(|upstream| upstream.provider.issuer == provider.issuer);
        let reach = Reach {
            allow_private_addresses: upstream.is_some_and(|upstream| upstream.allow_private_addresses),
            allow_http: provider.issuer.starts_with("http:"),
            ca_file: upstream.and_then(|upstream| upstream.ca_file.clone()),
        };
        let url = upstream.and_then(|upstream| upstream.jwks_uri.clone()).or_else(|| Url::parse(&place).ok());
        let why = match (Fetcher::new(reach), url) {
            (Ok(fetcher), Some(url)) => match fetcher.get_json(&url).await {
                Ok(_) => format!("{url} answers, but gives no acceptable keys"),
                Err(error) => format!("{url}: {error}"),
            },
            (Err(error), _) => error.to_string(),
            (Ok(_), None) => "the issuer is no URL".to_owned(),
        };
        let next = "make it and its jwks_uri reachable from here; for a private address set \
                    allow_private_addresses, for a private authority ca_file";
        Check::unknown("keys", why, next)
    }

    fn times(&self, provider: &Provider, claims: &Object) -> Check {
        match jws::check_times(claims, self.now, provider.leeway_seconds) {
            Ok(times) => Check::good("times", format!("good until {}", moment::format_seconds(times.exp))),
            Err(error) => {
                let at = |name| {
                    claims
                        .get(name)
                        .and_then(Value::as_u64)
                        .map(|at| format!("{name} {}", moment::format_seconds(at)))
                };
                let said: Vec<String> = ["iat", "nbf", "exp"].into_iter().filter_map(at).collect();
                let next = match error {
                    JwsError::Claim("exp", "expired") => what_to_do("expired"),
                    _ => what_to_do("not_yet_valid"),
                };
                Check::bad(
                    "times",
                    format!("{error}; {}; now {}", said.join(", "), moment::format_seconds(self.now)),
                    next,
                )
            }
        }
    }

    /// What the token says by itself, whoever brings it: as if every audience and party in it were on the list.
    async fn person(&self, provider: &Provider, claims: &Object) -> Check {
        match self.verify(&provider.tenant, &parties(claims)).await {
            Ok(verified) => {
                let person = &verified.person;
                let groups: Vec<&str> = person
                    .groups
                    .iter()
                    .filter_map(|group| group.rsplit_once('|'))
                    .map(|(_, group)| group)
                    .collect();
                let some = |list: &[&str]| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
                let roles: Vec<&str> = person.roles.iter().map(String::as_str).collect();
                let found = format!("{}; groups {}; roles {}", person.sub, some(&groups), some(&roles));
                if roles.is_empty() && !provider.claims.roles.is_empty() {
                    let configured: Vec<&str> =
                        provider.claims.roles.values().flatten().map(String::as_str).collect();
                    let next = format!(
                        "no group gives a role (claims.roles knows {}): policies by role will not hold",
                        configured.join(", ")
                    );
                    return Check { next: Some(next), ..Check::good("person", found) };
                }
                Check::good("person", found)
            }
            // Said above already.
            Err(UserTokenError::Jws(_) | UserTokenError::Algorithm | UserTokenError::KeysUnavailable(_)) => {
                Check::unknown(
                    "person",
                    "not looked at: the token does not hold",
                    "correct what is above first",
                )
            }
            Err(error) => {
                let stable = &provider.claims.stable;
                let next = match &error {
                    UserTokenError::Subject(_) => format!(
                        "set claims.stable to a claim that is there and never changes; now it is {} ({} in ID tokens)",
                        stable.access_token.as_str(),
                        stable.id_token.as_str()
                    ),
                    _ => what_to_do(error.reason()).to_owned(),
                };
                Check::bad("person", error.to_string(), next)
            }
        }
    }

    /// The broker's own verdict, for each client that could bring the token.
    async fn clients(&self, checks: &mut Vec<Check>) {
        let mut asked = 0;
        let mut refusals = Vec::new();
        for client in
            self.resolved.clients.iter().filter(|client| self.client.is_none_or(|id| client.id == id))
        {
            // Most guards bring no users' tokens.
            let brings_any = !client.subject_audiences.is_empty() || !client.accepts_bearer.is_empty();
            if self.client.is_none() && !brings_any {
                continue;
            }
            asked += 1;
            let what = format!("client {}", client.id);
            let verified = match (&client.server, client.accepts_bearer.as_slice()) {
                (Some(server), accepted @ [_, ..]) => self.verify_presented(client, (server, accepted)).await,
                _ => self.verify(&client.tenant, &client.subject_audiences).await,
            };
            match verified {
                Ok(token) if token.bound_to.is_some() && !client.accepts_bearer.is_empty() => {
                    let next = what_to_do("subject_token_bound_to_another_key");
                    refusals.push(Check::bad(&what, "the token is bound to a key (cnf)", next));
                }
                Ok(_) => checks.push(Check::good(&what, "may bring this token")),
                Err(UserTokenError::KeysUnavailable(_)) => {
                    checks.push(Check::unknown(
                        &what,
                        "not known without the issuer's keys",
                        what_to_do("keys_unavailable"),
                    ));
                }
                Err(error) => refusals.push(self.refused(&what, client, &error)),
            }
        }
        let accepted = checks.iter().any(|check| check.what.starts_with("client "));
        if asked == 0 {
            checks.push(Check::bad(
                "clients",
                "none may bring users' tokens",
                "give a client subject_audiences",
            ));
        } else if !accepted || self.client.is_some() {
            // One client that may bring it is enough; the others' refusals are then no fault.
            checks.extend(refusals);
        }
    }

    fn refused(&self, what: &str, client: &Client, error: &UserTokenError) -> Check {
        let claims = jws::parse(self.token, EmbeddedKey::Refused).map(|jws| jws.claims).unwrap_or_default();
        let next = match (error, &client.server) {
            (UserTokenError::Audience, Some(server)) if !client.accepts_bearer.is_empty() => {
                format!("let the identity provider make it for {server} alone (RFC 8707, `resource`)")
            }
            (UserTokenError::AuthorizedParty(_) | UserTokenError::UnknownIssuer, _)
                if !client.accepts_bearer.is_empty() =>
            {
                format!(
                    "name its issuer, and its client ({}), under accepts_bearer of {}",
                    parties(&claims).join(", "),
                    client.id
                )
            }
            (UserTokenError::Audience | UserTokenError::AuthorizedParty(_), _) => format!(
                "add what the token names ({}) to subject_audiences of {}, which are now: {}",
                parties(&claims).join(", "),
                client.id,
                client.subject_audiences.join(", ")
            ),
            (UserTokenError::Tenant, _) => {
                format!("the client is of tenant {}: give issuer and client the same one", client.tenant)
            }
            (error, _) => what_to_do(error.reason()).to_owned(),
        };
        Check::bad(what, error.to_string(), next)
    }

    async fn verify(&self, tenant: &str, audiences: &[String]) -> Result<VerifiedUserToken, UserTokenError> {
        self.providers.verify(self.token, SubjectTokenType::Jwt, tenant, audiences, self.now).await
    }

    /// As the guard of a server would bring it, to which it was presented.
    async fn verify_presented(
        &self,
        client: &Client,
        to: (&str, &[AcceptedBearer]),
    ) -> Result<VerifiedUserToken, UserTokenError> {
        self.providers.verify_presented(self.token, &client.tenant, to, self.now).await
    }
}

fn malformed(error: &JwsError) -> Check {
    let next = match error {
        JwsError::Algorithm => {
            "let the identity provider sign with an asymmetric algorithm (ES256, RS256, …)"
        }
        JwsError::Malformed("not three parts") => {
            "bring the JWT itself: an opaque access token cannot be verified; ask for one in JWT format, or bring the ID token"
        }
        _ => "bring the token exactly as the identity provider gave it",
    };
    Check::bad("form", error.to_string(), next)
}

/// Everybody that the token names as audience or authorized party.
fn parties(claims: &Object) -> Vec<String> {
    let mut named: Vec<String> = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    let parties =
        ["azp", "client_id", "appid", "cid"].into_iter().filter_map(|name| claims.get(name)?.as_str());
    named.extend(parties.map(str::to_owned));
    named.sort_unstable();
    named.dedup();
    named
}
