//! Arguments in the log: HMACs under a key per tenant and month, so that equal values can be matched by who holds
//! the key, and by nobody else, nor across tenants or months.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use deputize_call::json::{self, Object};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// Derives the key of each tenant and period.
pub struct Pseudonyms {
    key: hmac::Key,
    derived: Mutex<HashMap<(String, u64), Arc<hmac::Key>>>,
}

/// Names values for one tenant in one period.
pub struct TenantPseudonyms(Arc<hmac::Key>);

impl Pseudonyms {
    /// Under this key of the deployment.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), derived: Mutex::default() }
    }

    /// The names of a tenant at a time.
    pub fn of(&self, tenant: &str, now_seconds: u64) -> TenantPseudonyms {
        let period = now_seconds / PERIOD_SECONDS;
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = derived.get(&(tenant.to_owned(), period)) {
            return TenantPseudonyms(Arc::clone(key));
        }
        // Older periods are derived again when asked for; the map holds the tenants of this one.
        derived.retain(|(_, held), _| *held == period);
        let tag = hmac::sign(&self.key, format!("pseudonym/1\0{period}\0{tenant}").as_bytes());
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref()));
        derived.insert((tenant.to_owned(), period), Arc::clone(&key));
        TenantPseudonyms(key)
    }
}

impl TenantPseudonyms {
    /// The name of a value of some type.
    pub fn name(&self, kind: &str, value: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(value);
        URL_SAFE_NO_PAD.encode(context.sign().as_ref().get(..NAME_BYTES).unwrap_or_default())
    }

    /// Each top-level argument under its name; at most [`MAX_ARGUMENTS`].
    pub fn arguments(&self, arguments: &Object) -> BTreeMap<String, String> {
        arguments
            .iter()
            .take(MAX_ARGUMENTS)
            .filter_map(|(name, value)| {
                let canonical = json::canonicalize(value).ok()?;
                let name: String = name.chars().take(128).collect();
                let pseudonym = self.name(&format!("argument/{}\0{name}", type_of(value)), &canonical);
                Some((name, pseudonym))
            })
            .collect()
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pseudonyms").finish_non_exhaustive()
    }
}

/// 30 days.
const PERIOD_SECONDS: u64 = 30 * 86_400;
const NAME_BYTES: usize = 16;
const MAX_ARGUMENTS: usize = 64;
