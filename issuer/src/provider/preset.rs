//! What the large vendors' tokens look like.

use super::{AcceptedTypes, ClaimMapping, GroupsClaim, Provider, StableClaim};
use deputize_call::keys::Algorithm;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A vendor whose tokens' shape is known. Everything that it fills in can be overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Microsoft Entra ID, v1.0 (`https://sts.windows.net/{tid}/`) or v2.0
    /// (`https://login.microsoftonline.com/{tid}/v2.0`); each is an issuer of its own. A person is `oid` (`sub`
    /// differs by application); `tid` must be the issuer's; access tokens without `scp` are applications'. Groups
    /// are `groups`, app roles `roles` as `role:NAME`. A token whose groups were left out (overage) is refused.
    EntraId,
    /// Okta, a custom authorization server (`https://ORG/oauth2/SERVER`) or the organization's own for ID tokens.
    /// A person is `uid` in access tokens, whose `sub` is only a login name, and `sub` in ID tokens. No `typ` header.
    Okta,
    /// Auth0. The issuer ends with a slash. A person is `sub` (`CONNECTION|ID`). Groups stand in a claim of your
    /// own namespace, which you configure. Tokens of `client-credentials` are refused.
    Auth0,
    /// Keycloak. A person is `sub`. Groups are `groups`, realm roles `realm:NAME`; for client roles add
    /// `/resource_access/CLIENT/roles`. The claim `typ` tells access from ID tokens; refresh, offline and logout
    /// tokens and service accounts are refused.
    Keycloak,
    /// Google: ID tokens alone, since its access tokens are opaque. A person is `sub`. For Workspace demand `hd`.
    Google,
    /// Any other OpenID provider that keeps to OpenID Connect Core and RFC 9068: `sub`, `groups`.
    Generic,
}

impl Preset {
    /// An issuer of this kind, for this tenant.
    pub fn provider(self, issuer: &str, tenant: &str) -> Provider {
        Provider {
            issuer: issuer.to_owned(),
            tenant: tenant.to_owned(),
            claims: self.claims(issuer),
            algorithms: self.algorithms(),
            accepted_types: self.accepted_types(),
            leeway_seconds: 30,
            max_age_seconds: None,
        }
    }

    fn claims(self, issuer: &str) -> ClaimMapping {
        let plain = ClaimMapping {
            stable: StableClaim::same("sub"),
            groups: vec![GroupsClaim::new("groups", "")],
            roles: BTreeMap::new(),
            extra: BTreeMap::new(),
            acr: "acr".into(),
            amr: "amr".into(),
            auth_time: "auth_time".into(),
            common_claim: None,
            required: BTreeMap::new(),
            kind_claim: None,
            application_marks: Vec::new(),
            person_mark: None,
        };
        match self {
            Self::EntraId => ClaimMapping {
                stable: StableClaim::same("oid"),
                groups: vec![GroupsClaim::new("groups", ""), GroupsClaim::new("roles", "role:")],
                required: entra_tenant(issuer)
                    .map(|tid| ("tid".into(), vec![tid.to_owned()]))
                    .into_iter()
                    .collect(),
                application_marks: vec![("idtyp".into(), "app".to_owned())],
                person_mark: Some("scp".into()),
                ..plain
            },
            Self::Okta => ClaimMapping {
                stable: StableClaim { access_token: "uid".into(), id_token: "sub".into() },
                ..plain
            },
            Self::Auth0 => ClaimMapping {
                groups: Vec::new(),
                application_marks: vec![("gty".into(), "client-credentials".to_owned())],
                ..plain
            },
            Self::Keycloak => ClaimMapping {
                groups: vec![
                    GroupsClaim::new("groups", ""),
                    GroupsClaim::new("/realm_access/roles", "realm:"),
                ],
                kind_claim: Some("typ".into()),
                application_marks: vec![("preferred_username".into(), "service-account-".to_owned())],
                ..plain
            },
            Self::Google => ClaimMapping { groups: Vec::new(), ..plain },
            Self::Generic => plain,
        }
    }

    fn algorithms(self) -> Vec<Algorithm> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::EntraId | Self::Okta | Self::Google => vec![RS256],
            Self::Auth0 => vec![RS256, PS256],
            Self::Keycloak | Self::Generic => {
                vec![ES256, ES384, EdDSA, RS256, RS384, RS512, PS256, PS384, PS512]
            }
        }
    }

    fn accepted_types(self) -> AcceptedTypes {
        let (access_token, absent): (&[&str], bool) = match self {
            Self::EntraId => (&["jwt"], false),
            Self::Okta => (&["jwt", "at+jwt"], true),
            Self::Auth0 | Self::Keycloak => (&["jwt", "at+jwt"], false),
            Self::Google => (&[], false),
            Self::Generic => (&["jwt", "at+jwt"], true),
        };
        AcceptedTypes {
            access_token: access_token.iter().map(|typ| (*typ).to_owned()).collect(),
            id_token: vec!["jwt".to_owned()],
            absent,
        }
    }
}

/// The directory that an Entra ID issuer stands for.
fn entra_tenant(issuer: &str) -> Option<&str> {
    let path = issuer
        .strip_prefix("https://sts.windows.net/")
        .or_else(|| issuer.strip_prefix("https://login.microsoftonline.com/"))?;
    path.split('/').next().filter(|tid| !tid.is_empty())
}
