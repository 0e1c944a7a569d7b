//! A small world around a desk: one tenant with an agent platform and three servers, an identity provider with
//! Alice, and a neighbour tenant.

use arc_swap::ArcSwap;
use deputize_call::{
    claims::ToolCallClaims,
    digest::tool_digest,
    dpop::{self, NewProof},
    json::Object,
    keys::KeySet,
    nonce::NonceMaker,
    once::OnceSet,
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::{
    ask::{Ask, CallAsk, Claimed, ResourceUri, ScopeSet},
    authenticate::{Caller, Possession, Presented, PresentedProof, authenticate},
    client::{Client, Clients, PresentedActor, Reach},
    clock::{Clock, ClockWatch, TestClock},
    decide::Application,
    desk::{AwsDoor, Desk, Rules, Settings},
    drift::DriftedSet,
    error::IssueError,
    fakes::{FakeAudit, FakeProviderKeys, FakeReplay, FakeSts},
    issue::issue,
    keys::KeySource,
    limits::{Limits, Rate},
    lineage::Lineage,
    mint::{ToolCallToken, WebIdentity},
    policy::{PolicyEngine, PolicyFile},
    provider::{Preset, Provider, Providers, SubjectTokenType},
    record::{Audit, Pseudonyms, Refusals, Refused, record_denial},
    registry::Registry,
    replay::ReplayStore,
    revocation::RevokedSet,
    role_session::RoleSessions,
    svid::SpiffeDoor,
    templates::{AwsAccounts, Templates},
    transaction::TransactionIds,
    verify_subject::{PresentedSubject, Subject, verify_subject},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://deputize.example.com";
pub(crate) const TOKEN_ENDPOINT: &str = "https://deputize.example.com/token";
pub(crate) const IDP: &str = "https://id.example.com";
pub(crate) const OTHER_IDP: &str = "https://id.other.example";
pub(crate) const PLATFORM_AUDIENCE: &str = "https://platform.example.com";
pub(crate) const BOT: &str = "spiffe://corp.example/agent/bot";
pub(crate) const CRM: &str = "https://crm.example.com/mcp";
pub(crate) const MAILER: &str = "https://mailer.example.com/mcp";

/// What a world is made of; a test changes what it is about.
pub(crate) struct Setup {
    pub(crate) clients: Vec<Client>,
    pub(crate) servers: Vec<Value>,
    pub(crate) policies: String,
    pub(crate) providers: Vec<Provider>,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) once_capacity: usize,
    pub(crate) keys: HashMap<String, Arc<SigningKey>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) templates: Vec<Value>,
    /// The door to AWS, for a world that has one.
    pub(crate) sts: Option<Arc<FakeSts>>,
    /// The door to SVIDs, for a world that has one.
    pub(crate) spiffe: Option<Arc<SpiffeDoor>>,
}

pub(crate) struct World {
    pub(crate) desk: Arc<Desk>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) audit: Arc<FakeAudit>,
    pub(crate) replay: Arc<FakeReplay>,
    pub(crate) revocations: Arc<RevokedSet>,
    pub(crate) provider_keys: Arc<FakeProviderKeys>,
    pub(crate) clients: Vec<Client>,
    keys: HashMap<String, Arc<SigningKey>>,
    serial: AtomicU64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::new();
        change(&mut setup);
        let clock = Arc::clone(&setup.clock);
        let (audit, replay) = (Arc::new(FakeAudit::new("log.example/one")), Arc::new(FakeReplay::default()));
        let (keys, clients) = (setup.keys.clone(), setup.clients.clone());
        let (desk, revocations, provider_keys) =
            setup.desk(clock.clone() as _, audit.clone() as _, replay.clone() as _);
        let desk = Arc::new(desk);
        Self {
            desk,
            clock,
            audit,
            replay,
            revocations,
            provider_keys,
            clients,
            keys,
            serial: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(&self, name: &str) -> &SigningKey {
        &self.keys[name]
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now_seconds()
    }

    pub(crate) fn unique(&self, what: &str) -> String {
        format!("{what}-{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Id of a new decision.
    pub(crate) fn decision(&self) -> Uuid {
        Uuid::from_u128(self.serial.fetch_add(1, Ordering::Relaxed).into())
    }

    /// A client assertion, with `changes` (`null` leaves a claim out).
    pub(crate) fn assertion(&self, client: &str, changes: Value) -> String {
        self.assertion_of_type("JWT", client, changes)
    }

    pub(crate) fn assertion_of_type(&self, typ: &str, client: &str, changes: Value) -> String {
        let now = self.now();
        let mut claims = json!({
            "iss": client, "sub": client, "aud": ISSUER, "jti": self.unique("assertion"), "iat": now, "exp": now + 60,
        });
        merge(&mut claims, changes);
        self.key(client).sign(typ, &claims).unwrap()
    }

    pub(crate) fn nonce(&self) -> String {
        self.desk.nonces.make(self.clock.uptime())
    }

    /// A proof of the key of this name.
    pub(crate) fn proof(&self, key: &str) -> String {
        let (nonce, jti) = (self.nonce(), self.unique("proof"));
        self.proof_as(key, &NewProof { nonce: Some(&nonce), jti: &jti, ..self.plain_proof() })
    }

    pub(crate) fn plain_proof(&self) -> NewProof<'static> {
        let iat = self.now();
        NewProof { htm: "POST", htu: TOKEN_ENDPOINT, jti: "j", iat, nonce: None, access_token: None }
    }

    pub(crate) fn proof_as(&self, key: &str, proof: &NewProof<'_>) -> String {
        dpop::prove(self.key(key), proof).unwrap()
    }

    /// Authenticates with what is given.
    pub(crate) async fn authenticate(&self, assertion: &str, proof: &str) -> Result<Caller, IssueError> {
        authenticate(
            &self.desk,
            self.decision(),
            Presented::Assertion { assertion, client_id: None },
            Possession {
                proof: Some(PresentedProof { header: proof, htu: TOKEN_ENDPOINT }),
                certificate: None,
            },
        )
        .await
    }

    /// This client, authenticated, with its own key.
    pub(crate) async fn caller(&self, client: &str) -> Caller {
        self.caller_with_key(client, client).await
    }

    pub(crate) async fn caller_with_key(&self, client: &str, key: &str) -> Caller {
        self.authenticate(&self.assertion(client, json!({})), &self.proof(key)).await.unwrap()
    }

    /// Alice's token for the platform, with `changes`.
    pub(crate) fn alice(&self, changes: Value) -> String {
        let now = self.now();
        let mut claims = json!({
            "iss": IDP, "sub": "alice", "aud": PLATFORM_AUDIENCE, "client_id": "platform", "scope": "openid",
            "iat": now, "nbf": now, "exp": now + 600, "groups": ["staff"], "acr": "aal1", "auth_time": now - 100,
        });
        merge(&mut claims, changes);
        self.key(IDP).sign("at+jwt", &claims).unwrap()
    }

    pub(crate) fn alice_sub(&self) -> String {
        deputize_issuer::person::Person::encode_sub("acme", IDP, "alice")
    }

    /// Verifies a subject token as this caller's.
    pub(crate) async fn subject(&self, caller: &Caller, token: &str) -> Result<Subject, IssueError> {
        let presented = PresentedSubject { token, kind: SubjectTokenType::AccessToken, actor: None };
        verify_subject(&self.desk, caller, &presented).await
    }

    /// The whole line, as a door runs it.
    pub(crate) async fn exchange(
        &self,
        client: &str,
        token: &str,
        ask: &Ask,
    ) -> Result<ToolCallToken, IssueError> {
        let caller = self.caller(client).await;
        self.exchange_as(
            &caller,
            PresentedSubject { token, kind: SubjectTokenType::AccessToken, actor: None },
            ask,
        )
        .await
    }

    pub(crate) async fn exchange_as(
        &self,
        caller: &Caller,
        presented: PresentedSubject<'_>,
        ask: &Ask,
    ) -> Result<ToolCallToken, IssueError> {
        let decision_id = self.decision();
        let mut refused = Refused {
            caller: Some(caller),
            sub: None,
            bearer: None,
            resource: Some(ask.resource.as_str()),
            target: ask.call.target(),
            jti: None,
        };
        let subject = verify_subject(&self.desk, caller, &presented).await;
        let issued = match &subject {
            Ok(subject) => {
                (refused.sub, refused.bearer) = (Some(subject.person().sub.as_str()), subject.bearer());
                issue(&self.desk, &Application { decision_id, caller, subject: Some(subject), ask }).await
            }
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &issued {
            record_denial(&self.desk, decision_id, refused, error).await?;
        }
        issued
    }

    /// The platform asks for Alice.
    pub(crate) async fn for_alice(&self, ask: &Ask) -> Result<ToolCallToken, IssueError> {
        self.exchange("platform", &self.alice(json!({})), ask).await
    }

    /// As [`Self::for_alice`], for one that must be refused.
    pub(crate) async fn refusal(&self, ask: &Ask) -> IssueError {
        self.for_alice(ask).await.expect_err("must be refused")
    }

    /// A next hop: `client` brings `token`.
    pub(crate) async fn hop(
        &self,
        client: &str,
        token: &ToolCallToken,
        ask: &Ask,
    ) -> Result<ToolCallToken, IssueError> {
        self.exchange(client, token.access_token.expose(), ask).await
    }

    /// Signs claims as this broker does.
    pub(crate) fn own_token(&self, claims: &ToolCallClaims) -> String {
        self.keys[ISSUER].sign("at+jwt", claims).unwrap()
    }
}

impl Setup {
    pub(crate) fn new() -> Self {
        let mut provider = Preset::Generic.provider(IDP, "acme");
        provider.leeway_seconds = 5;
        let mut setup = Self {
            clients: Vec::new(),
            servers: vec![crm(), mailer(), foreign_server()],
            policies: "@id(\"everything\") permit (principal, action, resource);".to_owned(),
            providers: vec![provider, Preset::Generic.provider(OTHER_IDP, "other")],
            settings: Settings {
                issuer: ISSUER.to_owned(),
                token_endpoint: TOKEN_ENDPOINT.to_owned(),
                leeway_seconds: 5,
                proof_window_seconds: 30,
                log_size_at_start: 0,
                takes_certificates: true,
                started_at_seconds: NOW,
            },
            limits: Limits::new(PLENTY, PLENTY),
            once_capacity: 100_000,
            keys: HashMap::new(),
            clock: Arc::new(TestClock::at_seconds(NOW)),
            templates: Vec::new(),
            sts: None,
            spiffe: None,
        };
        for name in [IDP, OTHER_IDP, ISSUER, "spare"] {
            setup.make_key(name);
        }
        setup.client("platform", |client| {
            client.actor = Some(BOT.to_owned());
            client.subject_audiences = vec![PLATFORM_AUDIENCE.to_owned(), "platform".to_owned()];
            client.may_call = vec![reach("*")];
        });
        setup.client("crm", |client| {
            client.server = Some(CRM.to_owned());
            client.may_call = vec![reach(MAILER), reach(CRM)];
        });
        setup.client("mailer", |client| {
            client.server = Some(MAILER.to_owned());
            client.may_call = vec![reach(CRM)];
        });
        setup.client("foreigner", |client| {
            client.tenant = "other".to_owned();
            client.subject_audiences = vec![PLATFORM_AUDIENCE.to_owned(), "platform".to_owned()];
            client.may_call = vec![reach("*")];
        });
        setup
    }

    /// Adds a client with its own key.
    pub(crate) fn client(&mut self, id: &str, change: impl FnOnce(&mut Client)) {
        let key = self.make_key(id);
        let mut client = Client {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            actor: None,
            keys: KeySet::new(vec![key.public().clone()]),
            encryption_key: None,
            secret_sha256: None,
            spiffe_id: None,
            certificates: None,
            subject_audiences: Vec::new(),
            presents_actors: Vec::<PresentedActor>::new(),
            may_call: Vec::new(),
            server: None,
            accepts_bearer: Vec::new(),
            client_credentials: false,
            enabled: true,
        };
        change(&mut client);
        self.clients.push(client);
    }

    pub(crate) fn find_client(&mut self, id: &str) -> &mut Client {
        self.clients.iter_mut().find(|client| client.id == id).unwrap()
    }

    /// The registry entry of a tool.
    pub(crate) fn tool(&mut self, server: &str, tool: &str) -> &mut Value {
        let server = self.servers.iter_mut().find(|record| record["resource"] == server).unwrap();
        let tools = server["tools"].as_array_mut().unwrap();
        tools.iter_mut().find(|record| record["definition"]["name"] == tool).unwrap()
    }

    fn make_key(&mut self, name: &str) -> Arc<SigningKey> {
        let key = Arc::new(SigningKey::generate(SigningAlgorithm::ES256).unwrap());
        self.keys.insert(name.to_owned(), Arc::clone(&key));
        key
    }

    pub(crate) fn desk(
        self,
        clock: Arc<dyn Clock>,
        audit: Arc<dyn Audit>,
        assertions: Arc<dyn ReplayStore>,
    ) -> (Desk, Arc<RevokedSet>, Arc<FakeProviderKeys>) {
        let revocations = Arc::new(RevokedSet::default());
        let provider_keys = Arc::new(FakeProviderKeys::default());
        for issuer in [IDP, OTHER_IDP] {
            provider_keys.publish(issuer, KeySet::new(vec![self.keys[issuer].public().clone()]));
        }
        let rules = self.rules(&provider_keys);
        let aws = self.sts.clone().map(|sts| AwsDoor {
            sts,
            web_identity: WebIdentity {
                keys: Arc::new(KeySource::new(
                    SigningKey::generate(SigningAlgorithm::ES256).unwrap(),
                    Vec::new(),
                )),
                issuer: format!("{ISSUER}/web-identity"),
                audience: "sts.amazonaws.com".to_owned(),
            },
            sessions: RoleSessions::default(),
        });
        let own_key = SigningKey::from_pkcs8(&self.keys[ISSUER].to_pkcs8().unwrap(), None).unwrap();
        let desk = Desk {
            settings: self.settings,
            clock_watch: ClockWatch::new(clock.as_ref()),
            rules: ArcSwap::from_pointee(rules),
            keys: KeySource::new(own_key, Vec::new()),
            audit,
            assertions,
            proofs: OnceSet::new(Duration::from_secs(330), self.once_capacity),
            nonces: NonceMaker::new("one", Duration::from_secs(300)).unwrap(),
            redemptions: OnceSet::new(Duration::from_secs(180), self.once_capacity),
            revocations: revocations.clone(),
            drifts: Arc::new(DriftedSet::default()),
            lineage: Lineage::default(),
            transactions: TransactionIds::new(&[1; 32]),
            pseudonyms: Pseudonyms::new(&[2; 32]),
            limits: self.limits,
            refusals: Refusals::default(),
            aws,
            spiffe: self.spiffe.clone(),
            clock,
        };
        (desk, revocations, provider_keys)
    }

    fn templates(&self) -> Templates {
        let files = self.templates.iter().map(|file| serde_json::from_value(file.clone()).unwrap());
        Templates::build(files.collect()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    /// The rules as they would be loaded; also for reloading them into a running desk.
    pub(crate) fn rules(&self, provider_keys: &Arc<FakeProviderKeys>) -> Rules {
        let records =
            self.servers.iter().map(|server| serde_json::from_value(server.clone()).unwrap()).collect();
        let file = PolicyFile { name: "test".to_owned(), text: self.policies.clone() };
        Rules {
            clients: Clients::new(self.clients.clone()),
            providers: Providers::new(self.providers.clone(), provider_keys.clone(), None).unwrap(),
            registry: Registry::build(records).unwrap_or_else(|errors| panic!("{errors:?}")),
            policies: PolicyEngine::load(&[file]).unwrap_or_else(|errors| panic!("{errors:?}")),
            templates: self.templates(),
            aws_accounts: AwsAccounts::new(["111122223333".to_owned()]).unwrap(),
        }
    }
}

pub(crate) fn reach(resource: &str) -> Reach {
    Reach { resource: resource.to_owned(), tools: None, prompts: None, resources: None }
}

/// An ask for a server, with `authorization_details` as a client writes them; `Null` leaves them out.
pub(crate) fn ask(resource: &str, details: Value) -> Ask {
    let resource = ResourceUri::parse(resource).unwrap();
    let text = (!details.is_null())
        .then(|| json!([merged(json!({ "type": "mcp_tool_call" }), details)]).to_string());
    let call = CallAsk::parse(text.as_deref(), &resource).unwrap();
    Ask { resource, scope: None, call, transaction_id: None, approval_id: None, claimed: Claimed::default() }
}

pub(crate) fn scoped(ask: Ask, scope: &str) -> Ask {
    Ask { scope: Some(ScopeSet::parse(scope).unwrap()), ..ask }
}

/// L0, L1, and L3 of the CRM's low tool; L3 of its medium one.
pub(crate) fn listing() -> Ask {
    ask(CRM, Value::Null)
}
pub(crate) fn read_contact() -> Ask {
    ask(CRM, json!({ "identifier": "read_contact" }))
}
pub(crate) fn read_one_contact() -> Ask {
    ask(CRM, json!({ "identifier": "read_contact", "arguments": { "id": "c1" } }))
}
pub(crate) fn update_contact() -> Ask {
    ask(CRM, json!({ "identifier": "update_contact", "arguments": { "id": "c1", "name": "Ann" } }))
}
pub(crate) fn send_mail() -> Ask {
    ask(MAILER, json!({ "identifier": "send_mail", "arguments": { "to": "ann" } }))
}

pub(crate) fn merged(mut into: Value, changes: Value) -> Value {
    merge(&mut into, changes);
    into
}

pub(crate) fn merge(into: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (name, value) in changes {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&name);
        } else {
            into[name] = value;
        }
    }
}

pub(crate) fn server(id: &str, tools: Vec<Value>) -> Value {
    json!({
        "id": id, "resource": format!("https://{id}.example.com/mcp"), "tenant": "acme", "version": "1",
        "owner": "o", "purpose": "p", "environment": "production", "data_class": "internal", "verifier": "guard",
        "tools": tools,
    })
}

/// A tool with text arguments; those that are required are named first.
pub(crate) fn tool(name: &str, tier: &str, required: &[&str], optional: &[&str]) -> Value {
    let properties: Object = required
        .iter()
        .chain(optional)
        .map(|name| ((*name).to_owned(), json!({ "type": "string", "maxLength": 100 })))
        .collect();
    let definition = json!({
        "name": name, "description": "d",
        "inputSchema": { "type": "object", "properties": properties, "required": required },
    });
    let digest = tool_digest(definition.as_object().unwrap()).unwrap();
    json!({ "tier": tier, "effect": "write", "tool_digest": digest, "definition": definition })
}

fn crm() -> Value {
    let next = |tool: &str, level: &str| json!({ "server": MAILER, "tool": tool, "level": level });
    server(
        "crm",
        vec![
            merged(
                tool("read_contact", "low", &["id"], &[]),
                json!({ "downstream": [next("send_mail", "L3"), next("look_up", "L1")] }),
            ),
            tool("update_contact", "medium", &["id"], &["name"]),
            tool("refund", "high", &["id"], &[]),
            tool("delete_all", "critical", &[], &[]),
        ],
    )
}

fn mailer() -> Value {
    let back = json!([{ "server": CRM, "tool": "read_contact", "level": "L3" }]);
    server(
        "mailer",
        vec![
            merged(tool("send_mail", "medium", &["to"], &[]), json!({ "downstream": back })),
            tool("look_up", "low", &["name"], &[]),
            tool("purge", "medium", &[], &["before"]),
        ],
    )
}

fn foreign_server() -> Value {
    merged(server("abroad", vec![tool("read", "low", &[], &[])]), json!({ "tenant": "other" }))
}

const PLENTY: Rate = Rate { per_second: 1_000_000, burst: 1_000_000 };
