//! Where a claim stands in a token.

use deputize_call::json::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The place of a claim: a top-level name taken verbatim (`groups`, `https://example.com/groups`) or, beginning
/// with `/`, a JSON Pointer (RFC 6901): `/realm_access/roles`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// The path as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The value there, if any. `null` counts as absent. Pointers go through objects alone, not into arrays.
    pub fn find<'c>(&self, claims: &'c Object) -> Option<&'c Value> {
        let Some(pointer) = self.0.strip_prefix('/') else {
            return claims.get(&self.0).filter(|value| !value.is_null());
        };
        let mut object = claims;
        let mut segments = pointer.split('/').peekable();
        while let Some(segment) = segments.next() {
            // RFC 6901 §4: `~1` first, then `~0`.
            let value = object.get(&segment.replace("~1", "/").replace("~0", "~"))?;
            if segments.peek().is_none() {
                return Some(value).filter(|value| !value.is_null());
            }
            object = value.as_object()?;
        }
        None
    }
}

impl From<&str> for ClaimPath {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl std::fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_verbatim_and_pointers_descend() {
        let claims = serde_json::json!({
            "groups": ["a"], "realm_access": { "roles": ["b"] }, "https://example.com/x.y": "c",
            "a/b": { "~": 1 }, "nothing": null, "realm_access.roles": "verbatim",
        });
        let claims = claims.as_object().unwrap();
        let find = |path: &str| ClaimPath::from(path).find(claims).map(Value::to_string);
        assert_eq!(find("groups").as_deref(), Some("[\"a\"]"));
        assert_eq!(find("/realm_access/roles").as_deref(), Some("[\"b\"]"));
        assert_eq!(find("realm_access.roles").as_deref(), Some("\"verbatim\""));
        assert_eq!(find("https://example.com/x.y").as_deref(), Some("\"c\""));
        assert_eq!(find("/a~1b/~0").as_deref(), Some("1"));
        for absent in ["nothing", "/groups/0", "/realm_access/roles/0", "/realm_access/none", "/", "", "none"]
        {
            assert_eq!(find(absent), None, "{absent}");
        }
    }
}
