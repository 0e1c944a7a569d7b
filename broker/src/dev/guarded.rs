//! An MCP server of the environment behind its guard: the proxy and the link of `deputize guard`, in this process. The
//! guard speaks to the broker over HTTP as the server's own client, and to the server over HTTP too.

use axum::Router;
use deputize_call::{keys::KeySet, sign::SigningKey};
use deputize_guard::{
    GuardConfig,
    link::{Link, LinkSettings, SystemClock},
    proxy::{HttpUpstream, Proxy, ProxySettings, UpstreamKind},
};
use deputize_issuer::registry::ServerRecord;
use std::{path::Path, sync::Arc, time::Duration};
use url::Url;

use crate::{
    assemble::CannotStart,
    commands::{guard, serve::Running},
};

/// A guard that stands before a server.
pub(crate) struct Guarded {
    id: String,
    /// Dropped, it ends.
    _link: Arc<Link>,
    proxy: Arc<Proxy>,
}

impl Guarded {
    /// Stands before the server of this record, with the key of its client, and hands each of its calls AWS credentials
    /// where it works in AWS. It answers where its resource URI says.
    pub(crate) async fn start(
        (record, private_key): (&ServerRecord, SigningKey),
        upstream: HttpUpstream,
        broker: &Running,
        folder: &Path,
        works_in_aws: bool,
    ) -> Result<Self, CannotStart> {
        let cannot = |error: String| CannotStart(format!("guard of {}: {error}", record.id));
        let assembly = &broker.assembly;
        let public = Url::parse(&record.resource).map_err(|error| cannot(error.to_string()))?;
        let issuer = &assembly.desk.settings.issuer;
        // RFC 9728 §3.3: who finds the guard at this URL is told that this is the resource.
        let metadata = guard::metadata_url(&public);
        let mut config = GuardConfig::new(issuer, &record.resource, &record.resource, &metadata);
        let client_id = record.client_id.clone().unwrap_or_else(|| record.id.clone());
        config.name.clone_from(&client_id);
        let link = LinkSettings {
            issuer: issuer.clone(),
            resource: record.resource.clone(),
            client_id,
            private_key,
            decryption_keys: Vec::new(),
            snapshot_keys: KeySet::new(vec![assembly.guards.key().public().clone()]),
            state_folder: folder.join("guards").join(&record.id),
            ca_pem: None,
            clock: Arc::new(SystemClock::new()),
        };
        let proxy = ProxySettings::new(config, UpstreamKind::Http(upstream));
        let proxy = ProxySettings { hands_over_aws: works_in_aws, ..proxy };
        let (link, proxy) = guard::stand(link, proxy).map_err(|error| cannot(error.message))?;
        // The broker is in this process: the guard knows what was approved before it looks at the server.
        link.ready().await;
        Ok(Self { id: record.id.clone(), _link: link, proxy })
    }

    /// The server's id in the registry.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its routes.
    pub(crate) fn router(&self) -> Router {
        self.proxy.router()
    }

    /// Looks at the server, until [`Guarded::drain`].
    pub(crate) fn run(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.proxy).run()
    }

    /// Waits until it takes calls.
    pub(crate) async fn ready(&self) {
        self.proxy.looked().await;
    }

    /// Ends what goes on by itself; calls under way end by themselves.
    pub(crate) fn drain(&self) {
        self.proxy.drain();
    }

    /// Ends everything.
    pub(crate) async fn stop(self) {
        self.proxy.stop().await;
    }
}

/// How long a connection to a guard may be silent: an answer may be as long in coming as the server is given.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);
