//! Somebody who calls, where nobody does.

use deputize_issuer::{
    person::{ClaimValue, Person},
    templates::Match,
};
use std::collections::BTreeMap;

/// Who calls. What is not said is as the template wants it.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) groups: Option<Vec<String>>,
    pub(super) roles: Option<Vec<String>>,
    pub(super) claims: BTreeMap<String, ClaimValue>,
}

impl Caller {
    /// Somebody whom the template is for, where the caller does not say otherwise.
    pub(super) fn person(&self, matching: &Match) -> Person {
        let mut claims: BTreeMap<String, ClaimValue> = matching
            .claims
            .iter()
            .filter_map(|(name, values)| Some((name.clone(), ClaimValue::Text(values.first()?.clone()))))
            .collect();
        claims.extend(self.claims.clone());
        Person {
            tenant: matching.tenant.clone(),
            issuer: ISSUER.to_owned(),
            sub: Person::encode_sub(&matching.tenant, ISSUER, &self.user),
            groups: self.groups.clone().unwrap_or_else(|| matching.groups.clone()),
            roles: self.roles.clone().unwrap_or_else(|| matching.roles.clone()),
            claims,
            acr: None,
            amr: Vec::new(),
            auth_time: None,
        }
    }
}

/// Of an identity provider that nobody asks.
const ISSUER: &str = "https://login.example";
