//! Requests as an attacker would send them too: byte for byte in our hands, and sent again.

use super::Trouble;
use deputize_call::{
    dpop::{self, NewProof},
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_issuer::clock::{Clock, new_id};
use serde_json::{Value, json};
use std::time::Duration;

/// An HTTP client that follows nothing and retries nothing.
pub(super) struct Wire(reqwest::Client);

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    /// `DPoP-Nonce`.
    pub(super) nonce: Option<String>,
    pub(super) body: Value,
}

impl Wire {
    pub(super) fn new() -> Result<Self, Trouble> {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
        Ok(Self(builder.build()?))
    }

    pub(super) async fn get(&self, url: &str) -> Result<Answer, Trouble> {
        read(self.0.get(url).send().await?).await
    }

    pub(super) async fn get_text(&self, url: &str) -> Result<String, Trouble> {
        Ok(self.0.get(url).send().await?.error_for_status()?.text().await?)
    }

    pub(super) async fn post_form(&self, url: &str, form: &str, proof: &str) -> Result<Answer, Trouble> {
        let request = self.0.post(url).header("content-type", "application/x-www-form-urlencoded");
        read(request.header("dpop", proof).body(form.to_owned()).send().await?).await
    }

    /// Sends a message of MCP 2026-07-28 that calls a tool.
    pub(super) async fn post_call(
        &self,
        url: &str,
        (tool, message): (&str, &Value),
        authorization: &str,
        proof: &str,
    ) -> Result<Answer, Trouble> {
        let request = self.0.post(url).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        let request = request.header("mcp-protocol-version", MCP_VERSION);
        let request = request.header("mcp-method", "tools/call").header("mcp-name", tool);
        let request = request.header("authorization", authorization).header("dpop", proof);
        read(request.body(message.to_string()).send().await?).await
    }
}

impl Answer {
    /// The error code in it.
    pub(super) fn error(&self) -> &str {
        self.body.get("error").and_then(Value::as_str).unwrap_or_default()
    }
}

async fn read(response: reqwest::Response) -> Result<Answer, Trouble> {
    let status = response.status().as_u16();
    let nonce = response.headers().get("dpop-nonce").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
    Ok(Answer { status, nonce, body })
}

/// A client of the broker that makes its assertions and proofs by hand.
pub(super) struct HandMade<'h> {
    pub(super) issuer: &'h str,
    pub(super) client_id: &'h str,
    pub(super) key: SigningKey,
    pub(super) proof_key: SigningKey,
    pub(super) clock: &'h dyn Clock,
}

impl<'h> HandMade<'h> {
    /// The client with this private JWK.
    pub(super) fn new(
        issuer: &'h str,
        client_id: &'h str,
        private_jwk: &Value,
        clock: &'h dyn Clock,
    ) -> Result<Self, Trouble> {
        let jwk = private_jwk.as_object().ok_or_else(|| Trouble::new("the client's key is no JWK"))?;
        let (key, proof_key) =
            (SigningKey::from_private_jwk(jwk)?, SigningKey::generate(SigningAlgorithm::ES256)?);
        Ok(Self { issuer, client_id, key, proof_key, clock })
    }

    /// An exchange with a new assertion.
    pub(super) fn form(
        &self,
        subject_token: &str,
        resource: &str,
        details: &Value,
    ) -> Result<String, Trouble> {
        let now = self.clock.now_seconds();
        let claims = json!({
            "iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "jti": self.id()?,
            "iat": now, "exp": now + 60
        });
        Ok(url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token", subject_token)
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("resource", resource)
            .append_pair("authorization_details", &json!([details]).to_string())
            .append_pair("client_id", self.client_id)
            .append_pair("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .append_pair("client_assertion", &self.key.sign("client-authentication+jwt", &claims)?)
            .finish())
    }

    /// A new proof for the token endpoint.
    pub(super) fn proof(&self, token_endpoint: &str, nonce: Option<&str>) -> Result<String, Trouble> {
        let (jti, iat) = (self.id()?, self.clock.now_seconds());
        let proof = NewProof { htm: "POST", htu: token_endpoint, jti: &jti, iat, nonce, access_token: None };
        Ok(dpop::prove(&self.proof_key, &proof)?)
    }

    fn id(&self) -> Result<String, Trouble> {
        Ok(new_id(self.clock)?.to_string())
    }
}

/// The version of MCP that the agent of the story speaks.
pub(super) const MCP_VERSION: &str = "2026-07-28";
const TIMEOUT: Duration = Duration::from_secs(10);
