//! X.509-SVIDs as they came over the socket: checked, then shown.

use deputize_workload_api::proto::{X509svid as Message, X509svidResponse};
use serde::Serialize;
use spiffe::{X509Bundle, X509Svid};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::files::Written;
use crate::{
    commands::{
        exit::{CommandError, Exit},
        output::Facts,
    },
    moment,
};

/// All X.509-SVIDs of one message.
pub(super) struct Received {
    svids: Vec<Svid>,
    federated: Vec<String>,
}

/// One of them, with the bundle of its trust domain.
pub(super) struct Svid {
    pub(super) svid: X509Svid,
    pub(super) bundle: X509Bundle,
    not_after_seconds: u64,
    hint: String,
}

/// What is told of them: everything but the keys.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    svids: Vec<ShownSvid>,
    /// Foreign trust domains whose bundles came along.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    federated_bundles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<Written>,
}

#[derive(Debug, Serialize)]
struct ShownSvid {
    spiffe_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    /// In UTC.
    expires_at: String,
    /// Certificates in its chain.
    certificates: usize,
    /// Authorities in the bundle of its trust domain.
    authorities: usize,
}

impl Received {
    /// Reads and checks a message: that each chain has the ID that it says, and the key that belongs to it.
    ///
    /// # Errors
    /// If one does not hold.
    pub(super) fn read(message: X509svidResponse) -> Result<Self, CommandError> {
        let federated = message.federated_bundles.into_keys().collect();
        let svids = message.svids.iter().map(Svid::read).collect::<Result<_, _>>()?;
        Ok(Self { svids, federated })
    }

    /// The one with this ID; without one the first, which is the default (SPIFFE Workload API §5.3).
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn chosen(&self, spiffe_id: Option<&str>) -> Result<&Svid, CommandError> {
        let found = match spiffe_id {
            None => self.svids.first(),
            Some(id) => self.svids.iter().find(|svid| svid.svid.spiffe_id().to_string() == id),
        };
        found.ok_or_else(|| {
            CommandError::new(
                Exit::Denied,
                format!("this process has no identity {}", spiffe_id.unwrap_or_default()),
                "leave --spiffe-id out to see which it has; `--explain` shows what an entry lacks",
            )
        })
    }

    pub(super) fn shown(&self, spiffe_id: Option<&str>, written: Option<Written>) -> Shown {
        let is_asked = |svid: &&Svid| spiffe_id.is_none_or(|id| svid.svid.spiffe_id().to_string() == id);
        let svids = self.svids.iter().filter(is_asked).map(|svid| ShownSvid {
            spiffe_id: svid.svid.spiffe_id().to_string(),
            hint: svid.hint.clone(),
            expires_at: moment::format_seconds(svid.not_after_seconds),
            certificates: svid.svid.cert_chain().len(),
            authorities: svid.bundle.authorities().len(),
        });
        Shown { svids: svids.collect(), federated_bundles: self.federated.clone(), written }
    }
}

impl Svid {
    fn read(message: &Message) -> Result<Self, CommandError> {
        let svid = X509Svid::parse_from_der(&message.x509_svid, &message.x509_svid_key).map_err(damaged)?;
        if svid.spiffe_id().to_string() != message.spiffe_id {
            return Err(damaged("its ID is not that of its certificate"));
        }
        let bundle = X509Bundle::parse_from_der(svid.spiffe_id().trust_domain().clone(), &message.bundle);
        let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes()).map_err(damaged)?;
        let not_after_seconds = u64::try_from(leaf.validity().not_after.timestamp()).map_err(damaged)?;
        Ok(Self { bundle: bundle.map_err(damaged)?, svid, not_after_seconds, hint: message.hint.clone() })
    }
}

impl Shown {
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for svid in &self.svids {
            let mut facts = Facts::default();
            facts.add("SPIFFE ID", &svid.spiffe_id);
            facts.add_some("hint", Some(&svid.hint).filter(|hint| !hint.is_empty()));
            facts.add("good until", &svid.expires_at);
            facts.add(
                "certificates",
                format!("{}; authorities to trust: {}", svid.certificates, svid.authorities),
            );
            text.push_str(&facts.to_string());
        }
        let mut facts = Facts::default();
        for domain in &self.federated_bundles {
            facts.add("bundle of", domain);
        }
        if let Some(written) = &self.written {
            for file in [&written.svid, &written.key, &written.bundle] {
                facts.add("written", file.display().to_string());
            }
        }
        text.push_str(&facts.to_string());
        text
    }
}

fn damaged(error: impl std::fmt::Display) -> CommandError {
    CommandError::failure(
        format!("an X.509-SVID of the Workload API cannot be used: {error}"),
        "see the log of whoever serves the socket",
    )
}
