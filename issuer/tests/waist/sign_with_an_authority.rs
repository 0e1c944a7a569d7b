//! Authorities sign for the mint alone.
use deputize_issuer::authority::{Authorities, Authority};
use rcgen::{CertificateParams, KeyPair};

fn sign(authority: &Authority, parameters: &CertificateParams, key: &KeyPair) {
    let _ = authority.sign(parameters, key);
}

fn sign_elsewhere(authorities: &Authorities, parameters: &CertificateParams, key: &KeyPair) {
    let _ = parameters.signed_by(key, &authorities.ring().active.issuer);
}

fn main() {}
