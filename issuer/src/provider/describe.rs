//! From the claims of one token to a person.

use super::{COMMON_CLAIM, ClaimPath, Provider, UserTokenError, kind::TokenKind};
use crate::person::{ClaimValue, Person};
use deputize_call::json::Object;
use serde_json::Value;
use std::collections::BTreeMap;

/// Reads the person that these claims describe.
pub(super) fn person(
    provider: &Provider,
    kind: TokenKind,
    claims: &Object,
) -> Result<Person, UserTokenError> {
    let mapping = &provider.claims;
    for (path, accepted) in &mapping.required {
        let value = path.find(claims).and_then(Value::as_str);
        if !value.is_some_and(|value| accepted.iter().any(|accepted| accepted == value)) {
            return Err(UserTokenError::RequiredClaim(path.to_string()));
        }
    }
    let stable = match kind {
        TokenKind::Access => &mapping.stable.access_token,
        TokenKind::Id | TokenKind::Unmarked => &mapping.stable.id_token,
    };
    let stable = stable.find(claims).ok_or(UserTokenError::Subject("missing"))?;
    let stable = text(stable, MAX_SUBJECT_BYTES).map_err(UserTokenError::Subject)?;
    let groups = groups(provider, claims)?;
    let roles = mapping.roles.iter();
    let roles = roles.filter(|(_, of)| of.iter().any(|group| groups.contains(group)));
    Ok(Person {
        tenant: provider.tenant.clone(),
        issuer: provider.issuer.clone(),
        sub: Person::encode_sub(&provider.tenant, &provider.issuer, stable),
        roles: roles.map(|(role, _)| role.clone()).collect(),
        groups: groups.iter().map(|group| format!("{}|{group}", provider.issuer)).collect(),
        claims: extra_claims(provider, claims)?,
        acr: optional(&mapping.acr, claims, |value| Some(text(value, MAX_SUBJECT_BYTES).ok()?.to_owned()))?,
        amr: optional(&mapping.amr, claims, |value| texts(value, MAX_AMR).ok())?.unwrap_or_default(),
        auth_time: optional(&mapping.auth_time, claims, Value::as_u64)?,
    })
}

/// Whether a client got this token for itself, so that no person stands behind it.
pub(super) fn is_of_application(provider: &Provider, kind: TokenKind, claims: &Object) -> bool {
    let mapping = &provider.claims;
    let marked = mapping.application_marks.iter().any(|(path, mark)| {
        path.find(claims).and_then(Value::as_str).is_some_and(|value| value.starts_with(mark.as_str()))
    });
    let unmarked = kind == TokenKind::Access
        && mapping.person_mark.as_ref().is_some_and(|path| path.find(claims).is_none());
    // RFC 9068 §2.2: where no resource owner is involved, `sub` is the client itself.
    let sub = claims.get("sub");
    let own = sub.is_some() && super::PARTY_CLAIMS.iter().any(|name| claims.get(*name) == sub);
    marked || unmarked || own
}

fn groups(provider: &Provider, claims: &Object) -> Result<Vec<String>, UserTokenError> {
    // OpenID Connect Core §5.6.2: the claim is elsewhere. A policy that forbids by group must not miss one.
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    let mut found: Vec<String> = Vec::new();
    for claim in &provider.claims.groups {
        if elsewhere.is_some_and(|names| names.contains_key(claim.path.as_str())) {
            return Err(UserTokenError::Groups("left out of the token"));
        }
        let Some(value) = claim.path.find(claims) else { continue };
        for group in texts(value, MAX_GROUPS).map_err(UserTokenError::Groups)? {
            // INVARIANT: a group has one spelling: none may pass for one of another claim.
            let others =
                provider.claims.groups.iter().filter(|other| other.prefix.len() > claim.prefix.len());
            let group = format!("{}{group}", claim.prefix);
            if others.into_iter().any(|other| group.starts_with(&other.prefix)) {
                return Err(UserTokenError::Groups("looks like one of another claim"));
            }
            if !found.contains(&group) {
                found.push(group);
            }
        }
    }
    if claims.get("hasgroups") == Some(&Value::Bool(true)) && !provider.claims.groups.is_empty() {
        return Err(UserTokenError::Groups("left out of the token"));
    }
    if found.len() > MAX_GROUPS { Err(UserTokenError::Groups("too many")) } else { Ok(found) }
}

fn extra_claims(
    provider: &Provider,
    claims: &Object,
) -> Result<BTreeMap<String, ClaimValue>, UserTokenError> {
    let mapping = &provider.claims;
    let mut extra = BTreeMap::new();
    for (name, path) in &mapping.extra {
        if let Some(value) = optional(path, claims, claim_value)? {
            extra.insert(name.clone(), value);
        }
    }
    if let Some(path) = &mapping.common_claim {
        // Whoever may write any address into their profile must not become its owner.
        let verified = path.as_str() != "email" || claims.get("email_verified") == Some(&Value::Bool(true));
        let common = optional(path, claims, |value| text(value, MAX_SUBJECT_BYTES).ok().map(str::to_owned))?;
        if let Some(common) = common.filter(|_| verified) {
            extra.insert(COMMON_CLAIM.to_owned(), ClaimValue::Text(common));
        }
    }
    Ok(extra)
}

/// Absent is fine; present in a form that policy cannot see is not.
fn optional<'c, T>(
    path: &ClaimPath,
    claims: &'c Object,
    read: impl FnOnce(&'c Value) -> Option<T>,
) -> Result<Option<T>, UserTokenError> {
    match path.find(claims) {
        None => Ok(None),
        Some(value) => read(value).map(Some).ok_or_else(|| UserTokenError::ClaimShape(path.to_string())),
    }
}

fn claim_value(value: &Value) -> Option<ClaimValue> {
    match value {
        Value::Bool(flag) => Some(ClaimValue::Flag(*flag)),
        Value::Number(number) => number.as_i64().map(ClaimValue::Number),
        Value::String(value) if value.len() <= MAX_TEXT_BYTES => Some(ClaimValue::Text(value.clone())),
        Value::Array(_) => texts(value, MAX_TEXTS).ok().map(ClaimValue::Texts),
        Value::String(_) | Value::Object(_) | Value::Null => None,
    }
}

/// One text, or at most `max` of them.
fn texts(value: &Value, max: usize) -> Result<Vec<String>, &'static str> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    if values.len() > max {
        return Err("too many");
    }
    values.iter().map(|value| text(value, MAX_TEXT_BYTES).map(str::to_owned)).collect()
}

/// A text of 1–`max` bytes without control characters.
pub(super) fn text(value: &Value, max: usize) -> Result<&str, &'static str> {
    match value.as_str() {
        None => Err("not a text"),
        Some("") => Err("empty"),
        Some(text) if text.len() > max => Err("too long"),
        Some(text) if text.chars().any(char::is_control) => Err("control character"),
        Some(text) => Ok(text),
    }
}

const MAX_SUBJECT_BYTES: usize = 255;
const MAX_TEXT_BYTES: usize = 1024;
const MAX_TEXTS: usize = 100;
const MAX_GROUPS: usize = 200;
const MAX_AMR: usize = 20;
