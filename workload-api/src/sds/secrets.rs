//! Secrets by the names that Envoy gives: certificates with their keys, and whom to trust.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost_types::value::Kind;
use zeroize::Zeroize as _;

use super::pem;
use crate::{
    error::Refused,
    proto::{
        X509svid, X509svidResponse,
        secrets::{
            CertificateValidationContext, DataSource, Node, Packed, Secret, SpiffeCertValidatorConfig,
            TlsCertificate, TrustDomain, TypedExtensionConfig,
        },
    },
};

/// How whoever asks is told whom to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trust {
    /// As certificates of authorities: what every client understands.
    #[default]
    Authorities,
    /// As the configuration of Envoy's own verifier of SVIDs, which takes for each SVID the bundle of its own trust
    /// domain. Envoy has it from 1.18 on.
    Verifier,
}

impl Trust {
    /// What a client understands, by what it says of itself.
    pub(super) fn of(node: &Node) -> Self {
        let version = node.user_agent_build_version.as_ref().and_then(|build| build.version.as_ref());
        let knows = version.is_some_and(|version| (version.major_number, version.minor_number) >= (1, 18));
        let declines = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(DECLINES));
        let declines = declines.is_some_and(|value| value.kind == Some(Kind::BoolValue(true)));
        if knows && !declines { Self::Verifier } else { Self::Authorities }
    }
}

/// The secrets of these names, each once; all that there are where none is named.
///
/// # Errors
/// [`Refused`] if one of them is unknown, or this process is not entitled to it.
pub(super) fn find(state: &X509svidResponse, names: &[String], trust: Trust) -> Result<Vec<Packed>, Refused> {
    if names.is_empty() {
        return Ok(all(state, trust));
    }
    let mut found = Vec::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        if !names.iter().take(at).any(|earlier| earlier == name) {
            found.push(one(state, name, trust)?);
        }
    }
    Ok(found)
}

fn all(state: &X509svidResponse, trust: Trust) -> Vec<Packed> {
    let identities = state.svids.iter().map(|svid| certificate(&svid.spiffe_id, svid));
    identities.chain(bundles(state).map(|bundle| trusted(bundle.0, &[bundle], trust))).collect()
}

fn one(state: &X509svidResponse, name: &str, trust: Trust) -> Result<Packed, Refused> {
    let bundles: Vec<_> = bundles(state).collect();
    match name {
        DEFAULT => state.svids.first().map(|svid| certificate(name, svid)).ok_or(Refused::NotEntitled),
        ROOT_CA => bundles.first().map(|own| trusted(name, &[*own], trust)).ok_or(Refused::NotEntitled),
        // SPIFFE Federation §4.2: bundles are never merged, so without that verifier there is no such thing.
        ALL if trust == Trust::Authorities => {
            Err(Refused::Invalid("ALL needs Envoy's verifier of SVIDs (1.18): ask for one trust domain"))
        }
        ALL => Ok(trusted(name, &bundles, trust)),
        _ if name.starts_with(SCHEME) => {
            let svid = state.svids.iter().find(|svid| svid.spiffe_id == name);
            let bundle = bundles.iter().find(|(id, _)| *id == name);
            let found = svid.map(|svid| certificate(name, svid));
            found
                .or_else(|| bundle.map(|bundle| trusted(name, &[*bundle], trust)))
                .ok_or(Refused::NotThatIdentity)
        }
        _ => Err(Refused::Invalid("a secret is called default, ROOTCA, ALL, or by a SPIFFE ID")),
    }
}

/// The bundles that a process may know, by the ID of their trust domain, its own first.
fn bundles(state: &X509svidResponse) -> impl Iterator<Item = (&str, &Bytes)> {
    let own = state.svids.first().map(|svid| (trust_domain(&svid.spiffe_id), &svid.bundle));
    let federated = state.federated_bundles.iter().map(|(id, bundle)| (id.as_str(), bundle));
    own.into_iter().chain(federated)
}

/// `spiffe://example.org` of `spiffe://example.org/web`.
fn trust_domain(id: &str) -> &str {
    let end = id.match_indices('/').nth(2).map_or(id.len(), |(at, _)| at);
    id.get(..end).unwrap_or_default()
}

fn certificate(name: &str, svid: &X509svid) -> Packed {
    pack(&Secret {
        name: name.to_owned(),
        tls_certificate: Some(TlsCertificate {
            certificate_chain: Some(source(pem::certificates(&svid.x509_svid))),
            private_key: Some(source(pem::private_key(&svid.x509_svid_key))),
        }),
        validation_context: None,
    })
}

fn trusted(name: &str, bundles: &[(&str, &Bytes)], trust: Trust) -> Packed {
    let authorities = |bundle: &Bytes| source(pem::certificates(bundle));
    let context = match (trust, bundles) {
        (Trust::Authorities, bundles) => CertificateValidationContext {
            // INVARIANT: of one trust domain alone.
            trusted_ca: bundles.first().map(|(_, bundle)| authorities(bundle)),
            custom_validator_config: None,
        },
        (Trust::Verifier, bundles) => {
            let domain = |(id, bundle): &(&str, &Bytes)| TrustDomain {
                name: id.trim_start_matches(SCHEME).to_owned(),
                trust_bundle: Some(authorities(bundle)),
            };
            let config = SpiffeCertValidatorConfig { trust_domains: bundles.iter().map(domain).collect() };
            let typed_config =
                Packed { type_url: VERIFIER_TYPE.to_owned(), value: config.encode_to_vec().into() };
            let config = TypedExtensionConfig { name: VERIFIER.to_owned(), typed_config: Some(typed_config) };
            CertificateValidationContext { trusted_ca: None, custom_validator_config: Some(config) }
        }
    };
    pack(&Secret { name: name.to_owned(), tls_certificate: None, validation_context: Some(context) })
}

fn source(inline_bytes: Bytes) -> DataSource {
    DataSource { inline_bytes }
}

/// Packed where it is wiped when the last who shares it is gone.
fn pack(secret: &Secret) -> Packed {
    let mut value = BytesMut::with_capacity(secret.encoded_len());
    // There is room for it.
    let _ = secret.encode(&mut value);
    Packed { type_url: SECRET_TYPE.to_owned(), value: Bytes::from_owner(Wiped(value)) }
}

struct Wiped(BytesMut);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}

/// What is asked for, and what each of it is.
pub(super) const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VERIFIER_TYPE: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const VERIFIER: &str = "envoy.tls.cert_validator.spiffe";
/// The certificate of the first identity.
const DEFAULT: &str = "default";
/// Our own bundle.
const ROOT_CA: &str = "ROOTCA";
/// All bundles.
const ALL: &str = "ALL";
const SCHEME: &str = "spiffe://";
/// In the metadata of a node: it wants certificates of authorities.
const DECLINES: &str = "disable_spiffe_cert_validation";
