//! Clients that prove themselves by what they show to TLS, or by an SVID: each in one way.

use deputize_issuer::{
    certificate::{ExpectedCertificate, ExpectedName, OwnCertificate},
    client::{Client, ClientCertificates},
    entry::{is_reserved, parse_spiffe_id},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use spiffe::SpiffeId;
use std::{path::Path, sync::Arc};

use super::{raw, read::ConfigError, resolved::Check};

impl Check<'_> {
    /// The SPIFFE ID by whose SVIDs a client proves itself: it is what the client acts as, and nobody else's.
    pub(super) fn spiffe_id(&mut self, config: &raw::Config, client: &raw::Client) -> Option<SpiffeId> {
        let text = client.spiffe_id.as_ref()?;
        let whose = format!("client {:?}: spiffe_id {text:?}", client.id);
        let id = parse_spiffe_id(text).ok().filter(|id| !id.path().is_empty());
        let Some(id) = id else {
            self.refuse(format!("{whose}: give one like spiffe://example.org/agent"));
            return None;
        };
        if client.actor.as_ref().is_some_and(|actor| actor != text) {
            self.refuse(format!("{whose}: it acts as that; leave actor out"));
        }
        let Some(spiffe) = &config.spiffe else {
            self.refuse(format!("{whose}: say in spiffe which trust domain is ours"));
            return None;
        };
        let is_ours = id.trust_domain_name() == spiffe.trust_domain;
        let domain = id.trust_domain_name();
        if !is_ours && !spiffe.federation.iter().any(|foreign| foreign.trust_domain == domain) {
            self.refuse(format!("{whose}: its trust domain is neither ours nor in spiffe.federation"));
        }
        if is_ours && is_reserved(&id) {
            self.refuse(format!("{whose}: what is below /deputize is the broker's own"));
        }
        Some(id)
    }

    /// The certificates by which a client proves itself.
    pub(super) fn certificates(
        &mut self,
        config: &raw::Config,
        client: &raw::Client,
    ) -> Option<ClientCertificates> {
        if client.tls_client_auth.is_some() || client.certificate_file.is_some() {
            self.certificates_arrive(config, client);
        }
        let own = client.certificate_file.as_ref().and_then(|file| {
            let file = self.folder.join(file);
            self.pem(&file, |certificates| {
                certificates.iter().map(|der| OwnCertificate::read(der)).collect::<Result<Vec<_>, _>>()
            })
        });
        let vouched = client.tls_client_auth.as_ref().and_then(|expected| {
            let name = self.expected_name(client, expected)?;
            let file = self.folder.join(&expected.authority_file);
            self.pem(&file, |certificates| ExpectedCertificate::new(certificates, name))
        });
        own.map(ClientCertificates::Own)
            .or(vouched.map(|expected| ClientCertificates::Vouched(Arc::new(expected))))
    }

    /// RFC 6749 §2.3: whoever can prove itself in a second way can be attacked in two.
    pub(super) fn one_way(&mut self, client: &raw::Client, has_keys: bool) {
        let ways = [
            ("spiffe_id", client.spiffe_id.is_some()),
            ("tls_client_auth", client.tls_client_auth.is_some()),
            ("certificate_file", client.certificate_file.is_some()),
        ];
        let ways: Vec<&str> = ways.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        let id = &client.id;
        match ways.as_slice() {
            [] if client.jwks_file.is_none() && client.secret_sha256.is_none() => self.refuse(format!(
                "client {id:?}: give jwks_file (`deputize client add` makes one), spiffe_id, tls_client_auth or \
                 certificate_file"
            )),
            [] if has_keys && client.secret_sha256.is_some() => self.refuse(format!(
                "client {id:?}: give one of jwks_file and secret_sha256; beside a secret jwks_file has none but the key with use \"enc\""
            )),
            [] => {}
            [_] if !has_keys && client.secret_sha256.is_none() => {}
            [way] => self.refuse(format!(
                "client {id:?}: with {way} it authenticates in no other way: no secret, and in jwks_file none but the \
                 key with use \"enc\""
            )),
            _ => self.refuse(format!("client {id:?}: give one of {}", ways.join(", "))),
        }
    }

    /// Behind a proxy the certificate of a connection is the proxy's own, whoever's request it passes on.
    pub(super) fn no_proxys_certificate(&mut self, config: &raw::Config) {
        let asks = config.listen.tls.as_ref().and_then(|tls| tls.client_certificates);
        if config.listen.behind_proxy && asks == Some(raw::ClientCertificates::Ask) {
            self.refuse(
                "listen.tls.client_certificates: behind_proxy: true, so the one certificate that arrives is the proxy's \
                 own: leave one of the two out",
            );
        }
    }

    /// Behind a proxy no certificate of a client arrives here, and what the proxy says of one is not believed.
    fn certificates_arrive(&mut self, config: &raw::Config, client: &raw::Client) {
        let asks = !config.listen.behind_proxy
            && config.listen.tls.as_ref().is_some_and(|tls| {
                tls.client_certificates.unwrap_or(raw::ClientCertificates::Ask)
                    == raw::ClientCertificates::Ask
            });
        if !asks {
            self.refuse(format!(
                "client {:?}: shows a certificate, so this listener has to ask for it: give listen.tls, with \
                 client_certificates: ask and without behind_proxy; no proxy in front may terminate TLS",
                client.id
            ));
        }
    }

    /// A certificate says which one client shows it.
    pub(super) fn certificates_are_of_one(&mut self, clients: &[Client]) {
        for (at, one) in clients.iter().enumerate() {
            for other in clients.iter().skip(at + 1) {
                let is_shared = match (&one.certificates, &other.certificates) {
                    (Some(ClientCertificates::Own(one)), Some(ClientCertificates::Own(other))) => {
                        one.iter().any(|own| other.contains(own))
                    }
                    (Some(ClientCertificates::Vouched(one)), Some(ClientCertificates::Vouched(other))) => {
                        one.is_shared_with(other)
                    }
                    _ => false,
                };
                if is_shared {
                    self.refuse(format!(
                        "client {:?}: its certificate would be that of client {:?} as well: give each one of its own",
                        other.id, one.id
                    ));
                }
            }
        }
    }

    fn expected_name(&mut self, client: &raw::Client, expected: &raw::TlsClientAuth) -> Option<ExpectedName> {
        let raw::TlsClientAuth { dns, uri, email, ip, subject_dn, .. } = expected;
        let ip = ip.as_ref().map(|text| text.parse().map(ExpectedName::Ip).map_err(|_| "ip: no IP address"));
        let subject = subject_dn.as_ref().map(|text| {
            text.parse().map(ExpectedName::Subject).map_err(|_| "subject_dn: write CN=agent,O=Example")
        });
        let plain =
            |name: &Option<String>, make: fn(String) -> ExpectedName| name.clone().map(|it| Ok(make(it)));
        let given = [
            plain(dns, ExpectedName::Dns),
            plain(uri, ExpectedName::Uri),
            plain(email, ExpectedName::Email),
            ip,
            subject,
        ];
        let mut given = given.into_iter().flatten();
        let problem = match (given.next(), given.next()) {
            (Some(Ok(name)), None) => return Some(name),
            (Some(Err(problem)), None) => problem,
            _ => "give exactly one of dns, uri, email, ip and subject_dn",
        };
        self.refuse(format!("client {:?}: tls_client_auth: {problem}", client.id));
        None
    }

    /// What is read from the certificates of a file, of which there are some.
    fn pem<T, E: std::fmt::Display>(
        &mut self,
        file: &Path,
        read: impl FnOnce(&[CertificateDer<'static>]) -> Result<T, E>,
    ) -> Option<T> {
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| error.to_string())
            .and_then(|found| match (1..=MAX_CERTIFICATES).contains(&found.len()) {
                true => Ok(found),
                false => Err(format!("1 to {MAX_CERTIFICATES} certificates")),
            });
        let read = certificates.and_then(|found| read(&found).map_err(|error| error.to_string()));
        read.map_err(|problem| self.errors.push(ConfigError::new(file, problem))).ok()
    }
}

/// Whether a listener that is not told otherwise asks for certificates: some client may have one.
pub(super) fn somebody_shows_one(config: &raw::Config) -> bool {
    let is_asked = |client: &raw::Client| {
        client.spiffe_id.is_some() || client.tls_client_auth.is_some() || client.certificate_file.is_some()
    };
    config.has_nodes() || config.clients.iter().any(is_asked)
}

const MAX_CERTIFICATES: usize = 16;
