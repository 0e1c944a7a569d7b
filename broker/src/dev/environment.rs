//! A whole development environment in one process: identity provider, broker, a stand-in for AWS, and three MCP servers
//! behind guards.

#[cfg(test)]
mod tests;

use super::{
    example::Example,
    guarded::{self, Guarded},
    layout::{self, Layout, PLATFORM, TRUST_DOMAIN, WORKLOAD_API_SOCKET},
    ready_file::{ReadyAws, ReadyClient, ReadyFile, ReadyServer},
    registered::{self, Upstream},
};
use crate::{
    assemble::CannotStart,
    commands::serve::{self, Running},
    config::resolved::Mode,
    http::{
        listen::{Listening, serve_tcp_patiently},
        patient::IDLE_TIMEOUT,
    },
};
use axum::Router;
use deputize_call::{
    keys::KeySet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_client::{Clock, SystemClock};
use deputize_guard::proxy::HttpUpstream;
use deputize_issuer::registry::ServerRecord;
use deputize_stand_ins::{
    aws::{
        self, StandIn,
        call::Aws,
        container::{self, Container, Grant},
        ec2::INSTANCES,
        role::REGION,
    },
    example_server::{ExampleServer, Ops, door::Door},
    identity_provider::{IdentityProvider, PublicClient, users::USERS},
};
use serde_json::json;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use url::Url;

/// What may be chosen about an environment.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    /// Where the broker listens: a loopback address; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Where its files go: a folder that does not exist yet. Without one, a temporary folder, removed at the end.
    pub(crate) folder: Option<PathBuf>,
    /// Registry records of further MCP servers, which run elsewhere.
    pub(crate) register: Vec<PathBuf>,
    /// Where some of them run: the environment's guards stand before these.
    pub(crate) upstreams: Vec<Upstream>,
}

/// An environment that runs.
pub(crate) struct Environment {
    /// Where everything is.
    pub(crate) ready: ReadyFile,
    /// Its files: configuration, registry, policies, and the broker's data in `data`.
    pub(crate) files: Files,
    /// The server `crm`.
    pub(crate) crm: Example,
    /// The server `mailer`.
    pub(crate) mailer: Example,
    /// The server `ops`, and what it does.
    pub(crate) ops: (Example, Arc<Ops>),
    /// AWS.
    pub(crate) aws: Arc<StandIn>,
    /// Servers that run elsewhere, as they were registered.
    pub(crate) registered: Vec<ServerRecord>,
    guards: Vec<Guarded>,
    broker: Running,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts everything; it answers when this returns.
pub(crate) async fn start(choices: &Choices) -> Result<Environment, CannotStart> {
    if !choices.listen.ip().is_loopback() {
        return Err(CannotStart(format!(
            "{}: a development environment is for loopback alone",
            choices.listen
        )));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let folder = match &choices.folder {
        Some(folder) => layout::given_folder(folder),
        None => layout::fresh_folder(),
    };
    let files = Files { folder: folder.map_err(cannot)?, temporary: choices.folder.is_none() };
    start_in(files, choices, clock).await
}

async fn start_in(
    files: Files,
    choices: &Choices,
    clock: Arc<dyn Clock>,
) -> Result<Environment, CannotStart> {
    let mut doors = Doors::new();
    let provider = start_identity_provider(&mut doors, Arc::clone(&clock)).await?;
    let listener = TcpListener::bind(choices.listen).await.map_err(cannot)?;
    let broker_address = listener.local_addr().map_err(cannot)?;
    let (aws, aws_endpoint) = doors.open_aws(broker_address, &clock).await?;
    let (examples, listeners) = Examples::listen(&aws_endpoint, &clock).await?;
    let registered = registered::read(&choices.register, &examples.all().map(|example| &example.record))?;
    let mut places = Vec::new();
    for (example, listener) in examples.all().into_iter().zip(listeners) {
        places.push(Some((doors.open_example(&example.server).await?, listener)));
    }
    places.extend(registered::places(&choices.upstreams, &registered).await?);

    let platform_key = new_key()?;
    let mut servers = Vec::new();
    for record in examples.all().map(|example| &example.record).into_iter().chain(&registered) {
        servers.push((record, new_key()?));
    }
    let layout = Layout {
        folder: &files.folder,
        broker: broker_address,
        identity_provider: provider.issuer(),
        platform: &platform_key,
        servers: &servers,
        aws: &aws_endpoint,
        works_in_aws: &examples.ops.record.resource,
    };
    let config = layout.write().map_err(cannot)?;
    let resolved = serve::load(&config, Mode::Development)?;
    let broker = serve::start(&resolved, Mode::Development, listener).await?;
    // Whoever reads that it is ready may exchange at once.
    broker.assembly.providers_asked().await;
    let grant = grant(&broker, &provider, (&platform_key, &servers), &examples.ops, &clock)?;
    let ready_aws = doors.open_container(grant, &aws_endpoint).await?;
    let workload_api_socket = format!("unix://{}", files.folder.join(WORKLOAD_API_SOCKET).display());
    let ready = ready_file(&broker, &provider, (&platform_key, &servers), (ready_aws, workload_api_socket))?;

    let mut guards = Vec::new();
    for (server, place) in servers.into_iter().zip(places) {
        let Some((upstream, listener)) = place else { continue };
        let works_in_aws = server.0.id == examples.ops.record.id;
        let guarded = Guarded::start(server, upstream, &broker, &files.folder, works_in_aws).await?;
        doors.open(listener, guarded.router(), guarded::PATIENCE);
        doors.tasks.spawn(guarded.run());
        guards.push(guarded);
    }
    // What runs elsewhere may be started later.
    for guarded in guards.iter().take(examples.all().len()) {
        guarded.ready().await;
    }
    let Doors { stop, tasks } = doors;
    let Examples { crm, mailer, ops, work } = examples;
    let ops = (ops, work);
    Ok(Environment { ready, files, crm, mailer, ops, aws, registered, guards, broker, stop, tasks })
}

/// The environment's own MCP servers.
struct Examples {
    crm: Example,
    mailer: Example,
    ops: Example,
    /// What `ops` does.
    work: Arc<Ops>,
}

impl Examples {
    /// Each with a listener for its guard.
    async fn listen(aws: &Url, clock: &Arc<dyn Clock>) -> Result<(Self, [TcpListener; 3]), CannotStart> {
        let (crm_listener, crm) = listen_for_server().await?;
        let (mailer_listener, mailer) = listen_for_server().await?;
        let (ops_listener, ops) = listen_for_server().await?;
        let aws = Aws::at(aws.clone(), Arc::clone(clock)).map_err(cannot)?;
        let (ops, work) = ExampleServer::ops(&ops, "ops-guard", aws).map_err(cannot)?;
        let examples = Self {
            crm: Example::of(ExampleServer::crm(&crm, "crm-guard").map_err(cannot)?).map_err(cannot)?,
            mailer: Example::of(ExampleServer::mailer(&mailer, "mailer-guard").map_err(cannot)?)
                .map_err(cannot)?,
            ops: Example::of(ops).map_err(cannot)?,
            work,
        };
        Ok((examples, [crm_listener, mailer_listener, ops_listener]))
    }

    /// In the order of the ready file.
    fn all(&self) -> [&Example; 3] {
        [&self.crm, &self.mailer, &self.ops]
    }
}

impl Environment {
    /// Whether one of its own guards stands before the server of this id.
    pub(crate) fn is_guarded(&self, id: &str) -> bool {
        self.guards.iter().any(|guarded| guarded.id() == id)
    }

    /// Stops everything, the broker last: its log is closed then. What stays are the files.
    pub(crate) async fn stop(mut self) -> Files {
        for guarded in &self.guards {
            guarded.drain();
        }
        // There is a receiver as long as a task runs; without one there is nothing to stop.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        for guarded in self.guards {
            guarded.stop().await;
        }
        self.broker.drain().await;
        self.files
    }
}

/// The files of an environment. Dropped, they are removed if their folder is a temporary one.
pub(crate) struct Files {
    /// Where they are.
    pub(crate) folder: PathBuf,
    temporary: bool,
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "temporary folder not removed");
        }
    }
}

/// The listeners around the broker.
struct Doors {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Doors {
    fn new() -> Self {
        Self { stop: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Serves these routes; a connection may be silent for `idle`.
    fn open(&mut self, listener: TcpListener, router: Router, idle: Duration) {
        let listening = Listening {
            tls: None,
            connections: MAX_CONNECTIONS,
            connections_of_one_source: MAX_CONNECTIONS,
            drain: DRAIN,
            stop: self.stop.subscribe(),
        };
        self.tasks.spawn(serve_tcp_patiently(listener, router, listening, idle));
    }

    /// Serves an example server, for whoever knows its secret: its guard.
    async fn open_example(&mut self, server: &Arc<ExampleServer>) -> Result<HttpUpstream, CannotStart> {
        let (listener, address) = listen().await?;
        let door = Door::new(Arc::clone(server), self.stop.subscribe()).map_err(cannot)?;
        let mut upstream = HttpUpstream::new(Url::parse(&format!("http://{address}/mcp")).map_err(cannot)?);
        upstream.secret = Some(door.secret());
        self.open(listener, door.router(), IDLE_TIMEOUT);
        Ok(upstream)
    }
}

impl Doors {
    /// Serves a stand-in for AWS, where it knows the broker as an identity provider.
    async fn open_aws(
        &mut self,
        broker: SocketAddr,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Arc<StandIn>, Url), CannotStart> {
        let (listener, address) = listen().await?;
        let issuer = format!("http://{broker}/web-identity");
        let aws = Arc::new(StandIn::new(&issuer, Arc::clone(clock)).map_err(CannotStart)?);
        self.open(listener, aws.router(), IDLE_TIMEOUT);
        Ok((aws, Url::parse(&format!("http://{address}")).map_err(cannot)?))
    }

    /// Serves credentials for one call of this server's `restart_instance`, in alice's name.
    async fn open_container(&mut self, grant: Grant, aws: &Url) -> Result<ReadyAws, CannotStart> {
        let (listener, address) = listen().await?;
        let container = Arc::new(Container::new(grant).map_err(cannot)?);
        self.open(listener, container.router(), IDLE_TIMEOUT);
        let endpoint_url = aws.as_str().trim_end_matches('/').to_owned();
        Ok(ReadyAws {
            cloudtrail_url: format!("{endpoint_url}{}", aws::TRAIL_PATH),
            endpoint_url,
            region: REGION,
            container_credentials_full_uri: format!("http://{address}{}", container::PATH),
            authorization_token: container.authorization().expose().clone(),
            instances: INSTANCES,
        })
    }
}

/// What the credentials for SDKs are good for: the first instance, restarted by the agent platform in alice's name.
fn grant(
    broker: &Running,
    provider: &Arc<IdentityProvider>,
    (platform_key, servers): (&SigningKey, &[(&ServerRecord, SigningKey)]),
    ops: &Example,
    clock: &Arc<dyn Clock>,
) -> Result<Grant, CannotStart> {
    let issuer = &broker.assembly.desk.settings.issuer;
    let client = |id: &str, key: &SigningKey| {
        ReadyClient::of(id, key).map_err(cannot)?.connect(issuer).map_err(cannot)
    };
    let (record, key) = servers
        .iter()
        .find(|(record, _)| record.id == ops.record.id)
        .ok_or_else(|| CannotStart("the example server is not registered".to_owned()))?;
    Ok(Grant {
        provider: Arc::clone(provider),
        agent: client(PLATFORM, platform_key)?,
        server: client(record.client_id.as_deref().unwrap_or(&record.id), key)?,
        resource: record.resource.clone(),
        platform: PLATFORM,
        tool: "restart_instance",
        arguments: json!({ "instance_id": INSTANCES[0] }).as_object().cloned().unwrap_or_default(),
        clock: Arc::clone(clock),
    })
}

async fn start_identity_provider(
    doors: &mut Doors,
    clock: Arc<dyn Clock>,
) -> Result<Arc<IdentityProvider>, CannotStart> {
    let (listener, address) = listen().await?;
    let clients =
        vec![PublicClient { client_id: PLATFORM.to_owned(), redirect_paths: vec!["/callback".to_owned()] }];
    // RS256, as most identity providers do.
    let provider =
        IdentityProvider::new(&format!("http://{address}"), clients, SigningAlgorithm::RS256, clock);
    let provider = Arc::new(provider.map_err(cannot)?);
    doors.open(listener, provider.router(), IDLE_TIMEOUT);
    Ok(provider)
}

fn ready_file(
    broker: &Running,
    provider: &IdentityProvider,
    (platform_key, servers): (&SigningKey, &[(&ServerRecord, SigningKey)]),
    (aws, workload_api_socket): (ReadyAws, String),
) -> Result<ReadyFile, CannotStart> {
    let issuer = &broker.assembly.desk.settings.issuer;
    let mut user_tokens = std::collections::BTreeMap::new();
    for user in &USERS {
        let token = provider.issue_user_token(user.name, PLATFORM, USER_TOKEN_LIFETIME).map_err(cannot)?;
        user_tokens.insert(user.name.to_owned(), token.expose().clone());
    }
    let admin =
        broker.admin_address.ok_or_else(|| CannotStart("administration does not listen".to_owned()))?;
    let mut ready_servers = Vec::new();
    for (record, key) in servers {
        let client_id = record.client_id.as_deref().unwrap_or(&record.id);
        ready_servers.push(ReadyServer::of(record, ReadyClient::of(client_id, key).map_err(cannot)?));
    }
    Ok(ReadyFile {
        issuer: issuer.clone(),
        token_endpoint: format!("{issuer}/token"),
        jwks_uri: format!("{issuer}/jwks"),
        admin_url: format!("http://{admin}"),
        idp: provider.issuer().to_owned(),
        user_tokens,
        snapshot_jwks: KeySet::new(vec![broker.assembly.guards.key().public().clone()]).to_jwks(),
        client: ReadyClient::of(PLATFORM, platform_key).map_err(cannot)?,
        servers: ready_servers,
        aws,
        workload_api_socket,
        trust_domain: TRUST_DOMAIN,
    })
}

/// A listener for an MCP server, and the resource URI that it has there.
async fn listen_for_server() -> Result<(TcpListener, String), CannotStart> {
    let (listener, address) = listen().await?;
    Ok((listener, format!("http://{address}/mcp")))
}

async fn listen() -> Result<(TcpListener, SocketAddr), CannotStart> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok((listener, address))
}

fn new_key() -> Result<SigningKey, CannotStart> {
    SigningKey::generate(SigningAlgorithm::ES256).map_err(cannot)
}

fn cannot(error: impl std::fmt::Display) -> CannotStart {
    CannotStart(error.to_string())
}

const USER_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
const MAX_CONNECTIONS: usize = 256;
const DRAIN: Duration = Duration::from_secs(2);
