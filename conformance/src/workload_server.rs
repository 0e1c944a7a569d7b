//! A Workload API by gRPC for JavaScript, honest or with a fault on purpose, and what it serves.

use crate::{forge::Key, node::Script};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use std::path::Path;

/// What the server serves: change it before it starts, and it serves that.
pub struct Material {
    /// The members `x509` and `jwt` of what `workload_server.mjs` reads.
    pub served: Value,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A running server. It ends with this value.
pub struct WorkloadServer {
    _script: Script,
}

impl WorkloadServer {
    /// Starts it with this fault, or none for the empty text.
    pub fn start(socket: &Path, fault: &str, material: &Material) -> Self {
        let mut told = material.served.clone();
        told["socket"] = json!(socket);
        told["fault"] = json!(fault);
        let mut script = Script::start("workload_server.mjs", &[], None);
        assert_eq!(script.ask(&told)["ready"], true);
        Self { _script: script }
    }
}

impl Material {
    /// Two identities of `example.org`, with hints, and the bundles of it and of one foreign trust domain.
    pub fn honest() -> Self {
        let authority = authority("example.org");
        let foreign = self::authority("example-federated.org");
        let (bundle, foreign_bundle) = (encoded(authority.der()), encoded(foreign.der()));
        let jwt_key = Key::es256();
        let foreign_key = Key::es256();
        let ids = [
            ("myservice", "spiffe://example.org/myservice"),
            ("myservice2", "spiffe://example.org/myservice2"),
        ];
        let svids: Vec<_> = ids
            .map(|(hint, id)| {
                let mut svid = svid(&authority, &leaf(id));
                svid["spiffe_id"] = json!(id);
                svid["bundle"] = json!(bundle);
                svid["hint"] = json!(hint);
                svid
            })
            .into();
        let served = json!({
            "x509": {
                "svids": svids,
                "federated_bundles": { "spiffe://example-federated.org": foreign_bundle },
                "bundles": { "spiffe://example.org": bundle, "spiffe://example-federated.org": foreign_bundle },
            },
            "jwt": {
                "ids": ids.map(|(hint, id)| json!({ "spiffe_id": id, "hint": hint })),
                "private_jwk": jwt_key.private_jwk(),
                "jwks": {
                    "spiffe://example.org": { "keys": [jwt_key.jwk()] },
                    "spiffe://example-federated.org": { "keys": [foreign_key.jwk()] },
                },
            },
        });
        Self { served, authority }
    }

    /// Serves this certificate as the first SVID, under a key of its own.
    pub fn serve_leaf(&mut self, params: &CertificateParams) {
        self.serve_first(svid(&self.authority, params));
    }

    /// Serves a certificate of this authority as the first SVID, beside the bundle of the first one.
    pub fn serve_leaf_of(
        &mut self,
        authority: &CertifiedIssuer<'static, KeyPair>,
        params: &CertificateParams,
    ) {
        self.serve_first(svid(authority, params));
    }

    /// Serves this authority, its leaf and its bundle as the first SVID, and nothing else.
    pub fn serve_authority(&mut self, authority: &CertifiedIssuer<'static, KeyPair>) {
        self.serve_first(svid(authority, &leaf("spiffe://example.org/myservice")));
        let bundle = json!(encoded(authority.der()));
        let x509 = &mut self.served["x509"];
        x509["bundles"]["spiffe://example.org"] = bundle.clone();
        x509["svids"][0]["bundle"] = bundle;
        x509["svids"].as_array_mut().unwrap().truncate(1);
        self.served["jwt"]["ids"].as_array_mut().unwrap().truncate(1);
    }

    fn serve_first(&mut self, svid: Value) {
        for member in ["x509_svid", "x509_svid_key"] {
            self.served["x509"]["svids"][0][member] = svid[member].clone();
        }
    }
}

/// A good leaf's certificate, not yet signed.
pub fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A good authority's certificate, not yet signed.
pub fn authority_of(domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {domain}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A self-signed authority.
pub fn self_signed(params: CertificateParams) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A critical extension that nobody knows.
pub fn unknown_critical_extension() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, 1], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

fn authority(domain: &str) -> CertifiedIssuer<'static, KeyPair> {
    self_signed(authority_of(domain))
}

fn svid(authority: &CertifiedIssuer<'static, KeyPair>, params: &CertificateParams) -> Value {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    json!({ "x509_svid": encoded(certificate.der()), "x509_svid_key": encoded(&key.serialize_der()) })
}

fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
