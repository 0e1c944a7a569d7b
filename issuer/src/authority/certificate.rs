//! The certificate of an authority: what must hold of it, and of the way from it up to the trust anchor.

use deputize_call::digest::sha256;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod,
    KeyUsagePurpose, SanType,
};
use spiffe::{TrustDomain, cert::spiffe_id_from_der};
use std::time::Duration;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::AuthorityError;
use crate::clock;

/// The public side of an authority. Every one was checked when it was made or read.
///
/// INVARIANT: `chain` begins with the authority's own certificate, each is signed by the next, and the last by
/// `anchor`; the first is for our trust domain and for nothing in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    chain: Vec<Vec<u8>>,
    anchor: Vec<u8>,
    /// SHA-256 of each one's subject public key, in the order of the chain, the anchor's last.
    authorities: Vec<[u8; 32]>,
    not_before_seconds: u64,
    not_after_seconds: u64,
}

impl AuthorityCertificate {
    /// Reads one: its own certificate, those above it, and the trust anchor (the same again where it is self-signed).
    ///
    /// # Errors
    /// What does not hold.
    pub fn read(
        chain: Vec<Vec<u8>>,
        anchor: Vec<u8>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, AuthorityError> {
        let (own_der, above) = chain.split_first().ok_or(AuthorityError("there is no certificate"))?;
        if chain.len() > MAX_CHAIN {
            return Err(AuthorityError("the chain of certificates is too long"));
        }
        let own = parse(own_der)?;
        check_own(own_der, &own, trust_domain)?;
        let is_self_signed = above.is_empty() && *own_der == anchor;
        let mut below = own.clone();
        for der in above {
            let certificate = parse(der)?;
            check_signed(&below, &certificate)?;
            below = certificate;
        }
        let top = parse(&anchor)?;
        check_signed(&below, &top)?;
        check_signed(&top, &top).map_err(|_| AuthorityError("the last certificate is not self-signed"))?;
        if !is_self_signed && chain.contains(&anchor) {
            return Err(AuthorityError("the trust anchor is not part of the chain"));
        }
        let (not_before_seconds, not_after_seconds) = validity(&own)?;
        let mut authorities = vec![sha256(own.public_key().raw)];
        for der in above.iter().chain((!is_self_signed).then_some(&anchor)) {
            authorities.push(sha256(parse(der)?.public_key().raw));
        }
        Ok(Self { authorities, not_before_seconds, not_after_seconds, chain, anchor })
    }

    /// SHA-256 of its subject public key (DER): what it is known by.
    pub fn public_key_sha256(&self) -> [u8; 32] {
        self.authorities.first().copied().unwrap_or_default()
    }

    /// The same of it and of every authority above it.
    pub fn authorities(&self) -> &[[u8; 32]] {
        &self.authorities
    }

    /// The same, in lower-case hexadecimal: its name.
    pub fn id(&self) -> String {
        hex(&self.public_key_sha256())
    }

    /// DER: its own certificate first, then those above it, without the anchor. A self-signed one is its own anchor.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// DER of the certificate that verifiers trust.
    pub fn anchor(&self) -> &[u8] {
        &self.anchor
    }

    /// What is delivered with each SVID, behind it: nothing where the authority is its own anchor.
    pub fn intermediates(&self) -> &[Vec<u8>] {
        match self.chain.as_slice() {
            [own] if *own == self.anchor => &[],
            chain => chain,
        }
    }

    /// From when it is valid, in Unix seconds.
    pub fn not_before_seconds(&self) -> u64 {
        self.not_before_seconds
    }

    /// Until when it is valid, in Unix seconds.
    pub fn not_after_seconds(&self) -> u64 {
        self.not_after_seconds
    }
}

/// What the certificate of a new authority says (X509-SVID §4, §5): every field, for `rcgen`'s own choices are unsafe.
pub(super) fn parameters(
    trust_domain: &TrustDomain,
    public_key_sha256: &[u8; 32],
    validity_seconds: (u64, u64),
) -> Result<CertificateParams, AuthorityError> {
    let mut parameters = CertificateParams::default();
    set_validity(&mut parameters, validity_seconds)?;
    parameters.serial_number = Some(new_serial()?.to_vec().into());
    // X509-SVID §3.1: the trust domain's own ID, without a path, marks a signing certificate.
    parameters.subject_alt_names = vec![uri(&trust_domain.id_string())?];
    parameters.distinguished_name = organization();
    // Each authority has a name of its own: some verifiers choose among anchors by name alone.
    let name = hex(public_key_sha256.get(..16).unwrap_or_default());
    parameters.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER_ATTRIBUTE.to_vec()), name);
    // It signs SVIDs, and no further authority.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.extended_key_usages = Vec::new();
    parameters.name_constraints = None;
    parameters.crl_distribution_points = Vec::new();
    parameters.custom_extensions = Vec::new();
    // RFC 5280 §4.2.1.1: may be left out of a self-signed one alone; whoever signs with another's key sets it.
    parameters.use_authority_key_identifier_extension = false;
    let key_id = public_key_sha256.get(..20).unwrap_or_default().to_vec();
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
    Ok(parameters)
}

/// The subject that certificates of ours have in common.
pub(crate) fn organization() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, DnValue::Utf8String(ORGANIZATION.to_owned()));
    name
}

pub(crate) fn uri(text: &str) -> Result<SanType, AuthorityError> {
    let text = text.try_into().map_err(|_| AuthorityError("a SPIFFE ID that is no ASCII"))?;
    Ok(SanType::URI(text))
}

/// A random serial number: positive and of constant length (RFC 5280 §4.1.2.2).
pub(crate) fn new_serial() -> Result<[u8; SERIAL_BYTES], AuthorityError> {
    let mut serial = [0_u8; SERIAL_BYTES];
    clock::fill_random(&mut serial).map_err(|_| AuthorityError("no randomness"))?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

/// Sets from when until when a certificate is valid, in Unix seconds.
pub(crate) fn set_validity(
    parameters: &mut CertificateParams,
    (not_before_seconds, not_after_seconds): (u64, u64),
) -> Result<(), AuthorityError> {
    // RFC 5280 §4.1.2.5.2: four digits for the year.
    if not_after_seconds > LAST_SECOND || not_before_seconds >= not_after_seconds {
        return Err(AuthorityError("a certificate that is never valid, or for ever"));
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    parameters.not_before = epoch + Duration::from_secs(not_before_seconds);
    parameters.not_after = epoch + Duration::from_secs(not_after_seconds);
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, AuthorityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(AuthorityError("not a certificate in DER")),
    }
}

/// The SHA-256 of a subject public key (DER).
pub(super) fn public_key_sha256(key: &impl rcgen::PublicKeyData) -> [u8; 32] {
    sha256(&key.subject_public_key_info())
}

/// X509-SVID §3.1, §4.1 and §4.3, for a signing certificate; the library reads the ID and says what it is.
fn check_own(
    der: &[u8],
    certificate: &X509Certificate<'_>,
    trust_domain: &TrustDomain,
) -> Result<(), AuthorityError> {
    let id = spiffe_id_from_der(der).map_err(|_| AuthorityError("it has no SPIFFE ID, or several"))?;
    if id.trust_domain() != trust_domain {
        return Err(AuthorityError("it is of another trust domain"));
    }
    if !id.path().is_empty() {
        return Err(AuthorityError("its SPIFFE ID has a path: it is no authority's"));
    }
    check_can_sign(certificate, 0)
}

/// One certificate is signed by the other, which may do so.
pub(super) fn check_signed(
    below: &X509Certificate<'_>,
    above: &X509Certificate<'_>,
) -> Result<(), AuthorityError> {
    check_can_sign(above, 0)?;
    if below.issuer() != above.subject() {
        return Err(AuthorityError("a certificate does not follow from the next one"));
    }
    below
        .verify_signature(Some(above.public_key()))
        .map_err(|_| AuthorityError("a certificate is not signed by the next one"))
}

/// Whether it may sign certificates, with this many further authorities in between (RFC 5280 §4.2.1.3, §4.2.1.9).
pub(super) fn check_can_sign(
    certificate: &X509Certificate<'_>,
    authorities_below: u32,
) -> Result<(), AuthorityError> {
    let unreadable = |_| AuthorityError("an extension of a certificate cannot be read");
    let constraints = certificate.basic_constraints().map_err(unreadable)?;
    let constraints = constraints.filter(|found| found.critical && found.value.ca);
    let constraints = constraints.ok_or(AuthorityError("a certificate is not that of an authority"))?;
    if constraints.value.path_len_constraint.is_some_and(|most| most < authorities_below) {
        return Err(AuthorityError(
            "an authority may not have another below it: pathLenConstraint is too small",
        ));
    }
    let usage = certificate.key_usage().map_err(unreadable)?;
    if !usage.is_some_and(|found| found.value.key_cert_sign()) {
        return Err(AuthorityError("an authority may not sign certificates: keyUsage lacks keyCertSign"));
    }
    Ok(())
}

/// From when until when it is valid, in Unix seconds.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> Result<(u64, u64), AuthorityError> {
    let validity = certificate.validity();
    let seconds = |at: i64| u64::try_from(at).map_err(|_| AuthorityError("a certificate from before 1970"));
    Ok((seconds(validity.not_before.timestamp())?, seconds(validity.not_after.timestamp())?))
}

/// Ours, in every certificate. Who somebody is says the SPIFFE ID alone.
const ORGANIZATION: &str = "Deputize";
/// `serialNumber` as an attribute of a name (X.520 §6.2.9).
const SERIAL_NUMBER_ATTRIBUTE: [u64; 4] = [2, 5, 4, 5];
/// 126 random bits: no two certificates have one, and nobody guesses the next.
pub(crate) const SERIAL_BYTES: usize = 16;
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;
/// More than anybody has, with room below for an SVID in what the library reads.
const MAX_CHAIN: usize = 8;
