//! Clients that prove themselves by what they show to TLS, or by SVIDs; and a trust domain that a test has the keys of.

use crate::{
    forge::{Key, now},
    trust::{Authority, Certificate},
    workload_server::{authority_of, leaf, self_signed},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use std::path::Path;

/// Their certificates and keys.
pub struct Certified {
    /// The X.509 authority of the partner's trust domain.
    pub partner: CertifiedIssuer<'static, KeyPair>,
    /// The key of the partner's JWT-SVIDs.
    pub jwt_key: Key,
    /// Vouches for the client `vouched`.
    pub vouching: Authority,
    /// The certificate of `vouched`.
    pub vouched: Certificate,
    /// The certificate of `own`.
    pub own: Certificate,
}

impl Certified {
    /// New ones.
    pub fn new() -> Self {
        let vouching = Authority::new();
        Self {
            partner: self_signed(authority_of(PARTNER)),
            jwt_key: Key::es256(),
            vouched: vouching.certify_client(VOUCHED),
            own: Certificate::self_signed("own"),
            vouching,
        }
    }

    /// An X.509-SVID of the client `svid`, with this changed.
    pub fn svid(&self, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = leaf(SVID);
        change(&mut params);
        Certificate::signed(&params, &self.partner)
    }

    /// A JWT-SVID of the client `svid` for this broker, with these claims changed.
    pub fn jwt_svid(&self, issuer: &str, changes: &Value) -> String {
        let mut claims = json!({ "sub": SVID, "aud": issuer, "iat": now(), "exp": now() + 300 });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.jwt_key.token("JWT", &claims)
    }

    /// Writes what the configuration names.
    pub fn write(&self, folder: &Path) {
        let mut x509 = Key::es256().bare_jwk();
        x509["use"] = json!("x509-svid");
        x509["x5c"] = json!([STANDARD.encode(self.partner.der())]);
        let mut jwt = self.jwt_key.jwk();
        jwt["use"] = json!("jwt-svid");
        let bundle = json!({ "keys": [x509, jwt], "spiffe_sequence": 1, "spiffe_refresh_hint": 300 });
        std::fs::write(folder.join("partner.json"), bundle.to_string()).unwrap();
        std::fs::write(folder.join("vouching.pem"), self.vouching.pem()).unwrap();
        std::fs::write(folder.join("own.pem"), &self.own.certificate_pem).unwrap();
    }

    /// Adds them to a configuration.
    pub fn configure(&self, configuration: &mut Value) {
        configuration["spiffe"] = json!({
            "trust_domain": "example.org", "socket": "workload.sock",
            "federation": [{ "trust_domain": PARTNER, "bundle_file": "partner.json" }],
        });
        let clients = configuration["clients"].as_array_mut().unwrap();
        for (id, proof) in [
            ("svid", json!({ "spiffe_id": SVID })),
            ("vouched", json!({ "tls_client_auth": { "authority_file": "vouching.pem", "dns": VOUCHED } })),
            ("own", json!({ "certificate_file": "own.pem" })),
        ] {
            let mut client = json!({
                "id": id, "tenant": "acme", "subject_audiences": ["desk-app"], "may_call": [{ "resource": "*" }],
            });
            client.as_object_mut().unwrap().extend(proof.as_object().unwrap().clone());
            clients.push(client);
        }
    }
}

impl Default for Certified {
    fn default() -> Self {
        Self::new()
    }
}

/// The partner's trust domain.
pub const PARTNER: &str = "partner.test";
/// The SPIFFE ID of the client `svid`.
pub const SVID: &str = "spiffe://partner.test/agent";
/// The name of the client `vouched`.
pub const VOUCHED: &str = "bot.partner.test";
