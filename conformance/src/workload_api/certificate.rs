//! Certificates as X509-SVID and RFC 5280 want them. Signatures are verified here, with bare cryptography.

use super::{findings::Findings, spiffe_id};
use aws_lc_rs::signature::{self, KeyPair, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    certificate::{BasicExtension, X509Certificate},
    extensions::{GeneralName, KeyUsage},
    prelude::FromDer,
    time::ASN1Time,
};

/// Certificates in DER, one after the other and nothing else.
pub(super) fn certificates(mut der: &[u8]) -> Result<Vec<X509Certificate<'_>>, String> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("not a DER certificate: {error}"))?;
        found.push(certificate);
        der = rest;
    }
    Ok(found)
}

/// Looks at a leaf by itself; its SPIFFE ID, if it has exactly one.
pub(super) fn examine_leaf(findings: &mut Findings, leaf: &X509Certificate<'_>) -> Option<String> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let uris = uris(leaf);
    findings.holds("X509SVID-2-1", uris.len() == 1, format!("there are {} URIs", uris.len()));
    let critical = names.as_ref().is_some_and(|names| names.critical);
    let named = leaf.subject().iter().next().is_some();
    findings.holds("X509SVID-3.1-2", named || critical, "no subject, and the names are not critical");
    findings.holds("X509SVID-4.1-1", !leaf.is_ca(), "the leaf is a CA");
    if let Some(usage) = examine_usage(findings, leaf) {
        let signs_others = usage.key_cert_sign() || usage.crl_sign();
        findings.holds(
            "X509SVID-4.3-2",
            usage.digital_signature() && !signs_others,
            format!("the leaf's usage is {usage}"),
        );
    }
    match leaf.extended_key_usage() {
        Ok(Some(BasicExtension { value, .. })) => {
            findings.check("X509SVID-4.4-1", Ok(()));
            let both = value.server_auth && value.client_auth;
            findings.holds("X509SVID-4.4-2", both, "servers and clients are not both allowed");
        }
        _ => findings.check("X509SVID-4.4-1", Err("the leaf has none".to_owned())),
    }
    let [id] = uris.as_slice() else { return None };
    findings.holds("X509SVID-3.1-1", spiffe_id::has_path(id), format!("{id} has no path"));
    spiffe_id::examine(findings, id);
    Some(id.clone())
}

/// Looks at a certificate that signs others, of a chain or a bundle, for leaves of this trust domain.
pub(super) fn examine_signer(findings: &mut Findings, signer: &X509Certificate<'_>, domain: &str) {
    findings.holds("X509SVID-4.1-1", signer.is_ca(), "a signing certificate is not a CA");
    if let Some(usage) = examine_usage(findings, signer) {
        findings.holds("X509SVID-4.3-3", usage.key_cert_sign(), format!("its usage is {usage}"));
    }
    let uris = uris(signer);
    findings.holds("X509SVID-3.2-1", uris.len() == 1, "a signing certificate has no SPIFFE ID");
    if let [id] = uris.as_slice() {
        findings.holds("X509SVID-3.2-2", !spiffe_id::has_path(id), format!("{id} has a path"));
        let same = spiffe_id::trust_domain(id) == domain;
        findings.holds("X509SVID-3.2-3", same, format!("{id} signs for {domain}"));
    }
}

fn examine_usage(findings: &mut Findings, certificate: &X509Certificate<'_>) -> Option<KeyUsage> {
    let usage = certificate.key_usage().ok().flatten();
    let critical = usage.as_ref().is_some_and(|usage| usage.critical);
    findings.holds("X509SVID-4.3-1", critical, "key usage is missing, or not critical");
    usage.map(|usage| *usage.value)
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None })
        .collect()
}

/// Follows the path of a leaf to one of the authorities (RFC 5280 §6.1): names, signatures, times, CA, path length,
/// and no critical extension that is not understood.
pub(super) fn validate_path(
    chain: &[X509Certificate<'_>],
    authorities: &[X509Certificate<'_>],
    now_seconds: u64,
) -> Result<(), String> {
    let (leaf, between) = chain.split_first().ok_or("the chain is empty")?;
    let now = ASN1Time::from_timestamp(i64::try_from(now_seconds).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let mut current = leaf;
    for below in 0..=between.len() {
        good_by_itself(current, now)?;
        if let Some(anchor) = authorities.iter().find(|anchor| signed(current, anchor)) {
            good_by_itself(anchor, now)?;
            return may_sign(anchor, below);
        }
        let next = between.iter().find(|candidate| signed(current, candidate));
        current = next.ok_or("no authority in the bundle has signed it, and none in the chain")?;
        may_sign(current, below)?;
    }
    Err("the chain leads to no authority in the bundle".to_owned())
}

fn good_by_itself(certificate: &X509Certificate<'_>, now: ASN1Time) -> Result<(), String> {
    if !certificate.validity().is_valid_at(now) {
        return Err(format!("{} is not valid now", certificate.subject()));
    }
    let unknown = certificate
        .extensions()
        .iter()
        .find(|extension| extension.critical && !UNDERSTOOD.contains(&extension.oid.to_id_string().as_str()));
    unknown.map_or(Ok(()), |extension| Err(format!("the critical extension {} is unknown", extension.oid)))
}

fn may_sign(signer: &X509Certificate<'_>, below: usize) -> Result<(), String> {
    let constraints = signer.basic_constraints().ok().flatten();
    let constraints = constraints.filter(|constraints| constraints.value.ca);
    let constraints = constraints.ok_or("a certificate in the path is not a CA")?;
    match constraints.value.path_len_constraint {
        Some(most) if below > most as usize => Err("the path is longer than a CA in it allows".to_owned()),
        _ => Ok(()),
    }
}

fn signed(certificate: &X509Certificate<'_>, signer: &X509Certificate<'_>) -> bool {
    let key = &signer.public_key().subject_public_key.data;
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    let Some(algorithm) = algorithm_of(&algorithm, key.len()) else { return false };
    certificate.issuer().as_raw() == signer.subject().as_raw()
        && UnparsedPublicKey::new(algorithm, key)
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
            .is_ok()
}

/// The algorithm of a signature by its identifier, and for ECDSA by the length of the key, which tells its curve.
fn algorithm_of(identifier: &str, key_bytes: usize) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (identifier, key_bytes) {
        ("1.2.840.10045.4.3.2", 65) => &signature::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.2", 97) => &signature::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", 65) => &signature::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.3", 97) => &signature::ECDSA_P384_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", 133) => &signature::ECDSA_P521_SHA512_ASN1,
        ("1.2.840.113549.1.1.11", _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("1.3.101.112", _) => &signature::ED25519,
        _ => return None,
    })
}

/// Whether this is an unencrypted PKCS#8 key, and the leaf's.
pub(super) fn fits(leaf: &X509Certificate<'_>, pkcs8: &[u8]) -> Result<(), String> {
    let ecdsa = [
        &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
    ];
    let public = |key: &dyn AsRef<[u8]>| key.as_ref().to_vec();
    let public = ecdsa
        .iter()
        .find_map(|algorithm| signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok())
        .map(|pair| public(pair.public_key()))
        .or_else(|| signature::Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(|pair| public(pair.public_key())))
        .or_else(|| aws_lc_rs::rsa::KeyPair::from_pkcs8(pkcs8).ok().map(|pair| public(pair.public_key())));
    let public = public.ok_or("not an unencrypted PKCS#8 key of RSA, ECDSA or Ed25519")?;
    let fits = public == *leaf.public_key().subject_public_key.data;
    if fits { Ok(()) } else { Err("the key is another's".to_owned()) }
}

/// Basic constraints, key usage, extended key usage, subject alternative name, authority and subject key identifiers,
/// certificate policies.
const UNDERSTOOD: [&str; 7] =
    ["2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17", "2.5.29.35", "2.5.29.14", "2.5.29.32"];
