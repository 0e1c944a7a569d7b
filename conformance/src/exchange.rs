//! One token exchange as an honest client would make it, and everything that can be done to it before it is sent.

use crate::{
    forge::{Key, now, unique},
    trust::Certificate,
    wire::{Connection, Endpoint, Request, Response},
    world::{CRM, Started, World},
};
use serde_json::{Value, json};
use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A broker that is asked, and a count of what it answered.
pub struct Lab {
    /// The broker and everything around it.
    pub world: World,
    /// The broker's process.
    pub started: Started,
    granted: AtomicUsize,
    refused: AtomicUsize,
}

/// A token exchange on its way.
#[derive(Clone)]
pub struct Exchange {
    /// The request line, for what is not `POST /token`.
    pub method: String,
    /// Request target.
    pub target: String,
    /// Parameters in order.
    pub form: Vec<(String, String)>,
    /// `DPoP` headers.
    pub proofs: Vec<String>,
    /// Other headers; a `content-type` here replaces the form's own.
    pub headers: Vec<(String, String)>,
    /// The body, where it is not the form.
    pub body: Option<Vec<u8>>,
}

/// What was answered since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers with a token.
    pub granted: usize,
    /// Answers without.
    pub refused: usize,
}

impl Lab {
    /// Starts a broker on this world.
    pub async fn start(world: World) -> Self {
        let started = world.start().await;
        Self::of(world, started)
    }

    /// A broker that was started on this world.
    pub fn of(world: World, started: Started) -> Self {
        Self { world, started, granted: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
    }

    /// What the honest agent platform `desk` asks in alice's name: one refund, at L3, with this DPoP key.
    pub async fn honest(&self, key: &Key) -> Exchange {
        let mut exchange = self.for_client("desk", key).await;
        exchange.set("subject_token", &self.world.user_token("alice"));
        exchange
    }

    /// The same from any client; whatever it needs besides is for the caller to set.
    pub async fn for_client(&self, client: &str, key: &Key) -> Exchange {
        let mut exchange = self.template(client, "none");
        exchange.remove("subject_token");
        exchange.prove(vec![key.proof(&self.proof_claims(&self.nonce().await))]);
        exchange
    }

    /// The same without a proof: one is needed for each request, as is an assertion.
    pub fn template(&self, client: &str, subject_token: &str) -> Exchange {
        let mut exchange = Exchange {
            method: "POST".into(),
            target: "/token".into(),
            form: Vec::new(),
            proofs: Vec::new(),
            headers: Vec::new(),
            body: None,
        };
        exchange
            .set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .set("client_id", client)
            .set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .set("client_assertion", &self.assertion(client))
            .set("subject_token", subject_token)
            .set("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .call(CRM, "refund_payment", &json!({ "payment_id": "pay_81", "amount_cents": 4200 }));
        exchange
    }

    /// This exchange with a proof that has no nonce: it is answered with a challenge.
    pub fn unproven(&self, exchange: &Exchange) -> Exchange {
        let mut claims = self.proof_claims("");
        claims.as_object_mut().unwrap().remove("nonce");
        let mut exchange = exchange.clone();
        exchange.prove(vec![Key::es256().proof(&claims)]);
        exchange
    }

    /// The claims of a good assertion of this client.
    pub fn assertion_claims(&self, client: &str) -> Value {
        json!({
            "iss": client, "sub": client, "aud": self.world.base, "jti": unique(), "iat": now(), "exp": now() + 290,
        })
    }

    /// A good assertion of this client.
    pub fn assertion(&self, client: &str) -> String {
        self.world.client_keys[client].token("JWT", &self.assertion_claims(client))
    }

    /// The claims of a good proof for `/token`.
    pub fn proof_claims(&self, nonce: &str) -> Value {
        json!({
            "htm": "POST", "htu": format!("{}/token", self.world.base), "iat": now(), "jti": unique(), "nonce": nonce,
        })
    }

    /// A fresh nonce, had by asking without one. The challenge counts as a refusal.
    pub async fn nonce(&self) -> String {
        let answer = self.send(&self.unproven(&self.template("desk", "none"))).await;
        assert_eq!(answer.error_code().as_deref(), Some("use_dpop_nonce"), "{answer:?}");
        answer.header("dpop-nonce").expect("a challenge brings its nonce").to_owned()
    }

    /// Sends an exchange on a connection of its own.
    pub async fn send(&self, exchange: &Exchange) -> Response {
        self.count(self.world.door.send(&exchange.request()).await.unwrap())
    }

    /// Sends an exchange as a TLS client that shows this certificate.
    pub async fn send_showing(&self, certificate: &Certificate, exchange: &Exchange) -> Response {
        let client = self.world.authority.client_showing(certificate);
        let door = Endpoint::new(&self.world.base.parse().unwrap(), Some(client));
        self.count(door.send(&exchange.request()).await.unwrap())
    }

    /// Sends an exchange on a connection that is kept.
    pub async fn send_on(&self, connection: &mut Connection, exchange: &Exchange) -> io::Result<Response> {
        Ok(self.count(connection.send(&exchange.request()).await?))
    }

    /// A token from an honest exchange, for what comes next.
    pub async fn token(&self, key: &Key) -> String {
        crate::world::token_of(&self.send(&self.honest(key).await).await)
    }

    /// What was answered so far.
    pub fn tally(&self) -> Tally {
        Tally { granted: self.granted.load(Ordering::SeqCst), refused: self.refused.load(Ordering::SeqCst) }
    }

    fn count(&self, answer: Response) -> Response {
        let counter = if answer.json()["access_token"].is_string() { &self.granted } else { &self.refused };
        counter.fetch_add(1, Ordering::SeqCst);
        answer
    }
}

impl Exchange {
    /// Sets a parameter.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.form.iter_mut().find(|(sent, _)| sent == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => self.form.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Adds a parameter, though it may be there already.
    pub fn add(&mut self, name: &str, value: &str) -> &mut Self {
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.form.retain(|(sent, _)| sent != name);
        self
    }

    /// A parameter as it stands.
    pub fn get(&self, name: &str) -> &str {
        self.form.iter().find(|(sent, _)| sent == name).map_or("", |(_, value)| value)
    }

    /// Asks for this call at L3.
    pub fn call(&mut self, resource: &str, tool: &str, arguments: &Value) -> &mut Self {
        self.set("resource", resource);
        self.details(json!({
            "type": "mcp_tool_call", "locations": [resource], "actions": ["tools/call"], "identifier": tool,
            "arguments": arguments,
        }))
    }

    /// Asks for this tool at L1.
    pub fn tool(&mut self, resource: &str, tool: &str) -> &mut Self {
        self.set("resource", resource);
        self.details(json!({
            "type": "mcp_tool_call", "locations": [resource], "actions": ["tools/call"], "identifier": tool,
        }))
    }

    /// Asks with this one entry of `authorization_details`.
    pub fn details(&mut self, entry: Value) -> &mut Self {
        self.set("authorization_details", &json!([entry]).to_string())
    }

    /// The one entry of `authorization_details` as it stands.
    pub fn entry(&self) -> Value {
        serde_json::from_str::<Value>(self.get("authorization_details")).unwrap()[0].clone()
    }

    /// Sends these proofs.
    pub fn prove(&mut self, proofs: Vec<String>) -> &mut Self {
        self.proofs = proofs;
        self
    }

    /// Goes to this target with this method.
    pub fn at(&mut self, method: &str, target: &str) -> &mut Self {
        method.clone_into(&mut self.method);
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a header.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The request that comes of it.
    pub fn request(&self) -> Request {
        let mut request = Request::form(&self.target, &self.form);
        if self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request.headers.clear();
        }
        request.method.clone_from(&self.method);
        request.headers.extend(self.proofs.iter().map(|proof| ("dpop".to_owned(), proof.clone())));
        request.headers.extend(self.headers.iter().cloned());
        if let Some(body) = &self.body {
            request.body.clone_from(body);
        }
        request
    }
}
