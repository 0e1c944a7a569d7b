//! An X.509-SVID (SPIFFE X509-SVID): a leaf certificate with one SPIFFE ID, under the authority that is active.

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyUsagePurpose, PKCS_RSA_SHA256,
    PublicKeyData, SanType,
};
use spiffe::cert::spiffe_id_from_der;

use super::Mint;
use crate::{
    authority::{AuthorityError, CertificateKey, hex, organization, set_validity, uri},
    decide::{Leaf, NodeSvidTerms, X509SvidTerms},
    desk::Desk,
    error::IssueError,
    node::{NodeSvid, SeenBy},
    record::OpenRecord,
    secret::Secret,
    svid::X509Svid,
};

impl Mint for X509SvidTerms {
    type Credential = X509Svid;

    async fn mint(record: OpenRecord<Self>, desk: &Desk) -> Result<X509Svid, IssueError> {
        let terms = record.into_terms();
        // Its node may have been banned while its record was written.
        terms.seen_by.as_ref().map_or(Ok(()), SeenBy::stands)?;
        let (chain, private_key) = make(&terms.leaf, desk)?;
        Ok(X509Svid {
            spiffe_id: terms.entry.spiffe_id.clone(),
            entry: terms.entry.id.clone(),
            chain,
            private_key,
            not_before_seconds: terms.leaf.not_before_seconds,
            not_after_seconds: terms.leaf.not_after_seconds,
            hint: terms.entry.hint.clone(),
            authorities: terms.leaf.authority.certificate().authorities().to_vec(),
        })
    }
}

impl Mint for NodeSvidTerms {
    type Credential = NodeSvid;

    async fn mint(record: OpenRecord<Self>, desk: &Desk) -> Result<NodeSvid, IssueError> {
        let leaf = record.into_terms().leaf;
        let (chain, _) = make(&leaf, desk)?;
        Ok(NodeSvid {
            chain,
            serial: hex(&leaf.serial),
            not_after_seconds: leaf.not_after_seconds,
            authorities: leaf.authority.certificate().authorities().to_vec(),
            id: leaf.spiffe_id,
        })
    }
}

fn make(leaf: &Leaf, desk: &Desk) -> Result<Minted, IssueError> {
    let door = desk.spiffe.as_ref().ok_or(IssueError::Internal("no_door_to_spiffe"))?;
    // Tainted or revoked while its record was written: nobody would keep what it signs.
    if !door.authorities.ring().stands_by(leaf.authority.certificate().authorities()) {
        return Err(IssueError::UpstreamUnavailable("authority_withdrawn"));
    }
    let minted = match &leaf.requested {
        Some(public) => sign(leaf, public).map(|chain| (chain, None)),
        None => generate(leaf),
    };
    let (chain, private_key) = minted.map_err(|AuthorityError(reason)| IssueError::Internal(reason))?;
    check(leaf, &chain, private_key.as_ref())?;
    Ok((chain, private_key))
}

/// A chain, leaf first, and the leaf's key where it was made here.
type Minted = (Vec<Vec<u8>>, Option<Secret<Vec<u8>>>);

/// With a new key, which leaves with it and stays nowhere.
fn generate(leaf: &Leaf) -> Result<Minted, AuthorityError> {
    let key = CertificateKey::generate()?;
    Ok((sign(leaf, &key)?, Some(key.to_pkcs8()?)))
}

fn sign(leaf: &Leaf, key: &impl PublicKeyData) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let signed = leaf.authority.sign(&parameters(leaf, key)?, key)?;
    Ok([&[signed], leaf.authority.certificate().intermediates()].concat())
}

/// What the certificate says: every field, for `rcgen`'s own choices are unsafe.
fn parameters(leaf: &Leaf, key: &impl PublicKeyData) -> Result<CertificateParams, AuthorityError> {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters, (leaf.not_before_seconds, leaf.not_after_seconds))?;
    parameters.serial_number = Some(leaf.serial.to_vec().into());
    // X509-SVID §2: one URI, which is the SPIFFE ID, and any number of names of hosts.
    parameters.subject_alt_names = vec![uri(&leaf.spiffe_id.to_string())?];
    for name in &leaf.dns_names {
        let name = name.as_str().try_into().map_err(|_| AuthorityError("a DNS name that is no ASCII"))?;
        parameters.subject_alt_names.push(SanType::DnsName(name));
    }
    // No common name: old verifiers would take it for the name of a host.
    parameters.distinguished_name = organization();
    // X509-SVID §4.1: a leaf, and says so.
    parameters.is_ca = IsCa::ExplicitNoCa;
    // X509-SVID §4.3, critical; RSA keys may also be encrypted to (TLS 1.2 and before).
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if key.algorithm() == &PKCS_RSA_SHA256 {
        parameters.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    // X509-SVID §4.4: for both ends of a connection.
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.name_constraints = None;
    parameters.crl_distribution_points = Vec::new();
    parameters.custom_extensions = Vec::new();
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_identifier_method = KeyIdMethod::Sha256;
    Ok(parameters)
}

/// Nothing leaves that the library of those who use it would not take, or would take for another's.
fn check(leaf: &Leaf, chain: &[Vec<u8>], private_key: Option<&Secret<Vec<u8>>>) -> Result<(), IssueError> {
    let (first, id) = (chain.first().map(Vec::as_slice).unwrap_or_default(), &leaf.spiffe_id);
    let is_good = match private_key {
        Some(key) => spiffe::X509Svid::parse_from_der(&chain.concat(), key.expose())
            .is_ok_and(|svid| svid.spiffe_id() == id),
        None => spiffe_id_from_der(first).is_ok_and(|found| found == *id),
    };
    if is_good { Ok(()) } else { Err(IssueError::Internal("svid_not_as_it_should_be")) }
}
