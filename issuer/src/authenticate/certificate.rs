//! By the certificate of the TLS connection: `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705 §2.1, §2.2),
//! and `spiffe_x509`, an X.509-SVID (draft-ietf-oauth-spiffe-client-auth §4.2). Which of them, its configuration says.

use std::sync::Arc;

use crate::{
    certificate::PresentedCertificate,
    client::{Client, ClientCertificates, Clients},
    desk::Desk,
    error::IssueError,
};

/// Whose certificate this is, and by which method.
pub(super) fn verify_certificate(
    desk: &Desk,
    certificate: &PresentedCertificate,
    client_id: Option<&str>,
    now_seconds: u64,
) -> Result<(Arc<Client>, &'static str), IssueError> {
    let rules = desk.rules.load();
    let shown = Shown { desk, certificate, now_seconds };
    match client_id {
        None => shown.svid(&rules.clients).map(|client| (client, "spiffe_x509")),
        Some(id) => shown.of_client(&rules.clients, id),
    }
}

/// A certificate, when and where it was shown.
struct Shown<'a> {
    desk: &'a Desk,
    certificate: &'a PresentedCertificate,
    now_seconds: u64,
}

impl Shown<'_> {
    /// Whether it is that of the client whose id came along.
    fn of_client(&self, clients: &Clients, id: &str) -> Result<(Arc<Client>, &'static str), IssueError> {
        let refuse = IssueError::ClientAuthentication;
        let client = clients.enabled(id);
        match client.as_ref().and_then(|client| client.certificates.as_ref()) {
            Some(ClientCertificates::Vouched(expected)) => {
                let vouched = self.certificate.vouched_by(expected, self.now_seconds);
                vouched.map_err(|error| refuse(error.reason()))?;
                client.map(|client| (client, "tls_client_auth")).ok_or(refuse("client_certificate"))
            }
            Some(ClientCertificates::Own(own)) => {
                let is_one = own.iter().any(|own| own.is(self.certificate, self.now_seconds));
                let client = client.filter(|_| is_one).ok_or(refuse("client_certificate"))?;
                Ok((client, "self_signed_tls_client_auth"))
            }
            // An unknown client, and one that shows no certificates, are answered as one with an SVID is.
            None => {
                let found = self.svid(clients)?;
                if found.id == id {
                    Ok((found, "spiffe_x509"))
                } else {
                    Err(refuse("svid_of_another_client"))
                }
            }
        }
    }

    /// The client that has the SPIFFE ID of this SVID.
    fn svid(&self, clients: &Clients) -> Result<Arc<Client>, IssueError> {
        let refuse = IssueError::ClientAuthentication;
        let door = self.desk.spiffe.as_ref().ok_or(refuse("client_certificate"))?;
        let id = door.x509_caller(self.certificate, self.now_seconds);
        let id = id.map_err(|error| refuse(error.reason()))?;
        clients.with_spiffe_id(&id).ok_or(refuse("svid_of_no_client"))
    }
}
