//! The exchange at the socket of the Workload API: as the process that this command is.

use deputize_call::{
    dpop::{self, NewProof},
    sign::{SigningAlgorithm, SigningKey},
};
use deputize_client::ExchangeRequest;
use deputize_issuer::clock::{Clock as _, SystemClock, new_id};
use deputize_workload_api::proto::exchange::{
    ExchangeRequest as Message, ExchangeResponse, delegated_exchange_client::DelegatedExchangeClient,
};
use http::Uri;
use serde_json::Value;
use std::{path::Path, time::Duration};
use tonic::{Code, Status};

use super::{Args, Granted, TOKEN_TYPE, explain};
use crate::commands::{
    exit::{CommandError, Exit},
    input,
    svid::{Channel, address, unreachable, with_header},
};

/// Asks; once more with a nonce where that is wanted (RFC 9449 §8).
pub(super) async fn exchange(
    socket: &str,
    args: &Args,
    issuer: &str,
    request: &ExchangeRequest,
) -> Result<Granted, CommandError> {
    let path = address(socket)?;
    let key = match &args.dpop_key {
        Some(file) => input::private_key(file)?,
        None => SigningKey::generate(SigningAlgorithm::ES256).map_err(no_key)?,
    };
    let endpoint = format!("{}{ENDPOINT}", issuer.trim_end_matches('/'));
    let mut message = message(request)?;
    message.spiffe_id = args.spiffe_id.clone().unwrap_or_default();
    message.dpop = proof(&key, &endpoint, None)?;
    match send(&path, &message).await? {
        Ok(response) => granted(response),
        Err(status) => {
            let nonce = said(&status, "dpop-nonce").filter(|_| status.code() == Code::FailedPrecondition);
            let Some(nonce) = nonce else { return Err(refused(&path, &status)) };
            message.dpop = proof(&key, &endpoint, Some(&nonce))?;
            let again = send(&path, &message).await?;
            granted(again.map_err(|status| refused(&path, &status))?)
        }
    }
}

fn message(request: &ExchangeRequest) -> Result<Message, CommandError> {
    let mut message = Message::default();
    for (name, value) in request.parameters().map_err(explain)? {
        let field = match name {
            "subject_token" => &mut message.subject_token,
            "subject_token_type" => &mut message.subject_token_type,
            "resource" => &mut message.resource,
            "scope" => &mut message.scope,
            "authorization_details" => &mut message.authorization_details,
            "transaction_id" => &mut message.transaction_id,
            "approval_id" => &mut message.approval_id,
            // There is no other than token exchange at the socket.
            _ => continue,
        };
        value.as_str().clone_into(field);
    }
    Ok(message)
}

fn proof(key: &SigningKey, endpoint: &str, nonce: Option<&str>) -> Result<String, CommandError> {
    let clock = SystemClock::start();
    let jti = new_id(&clock).map_err(no_key)?.to_string();
    let iat = clock.now_seconds();
    let proof = NewProof { htm: "POST", htu: endpoint, jti: &jti, iat, nonce, access_token: None };
    dpop::prove(key, &proof).map_err(no_key)
}

async fn send(path: &Path, message: &Message) -> Result<Result<ExchangeResponse, Status>, CommandError> {
    let asked = async {
        let channel = Channel::connect(path).await.map_err(|why| unreachable(path, &why))?;
        let mut client = DelegatedExchangeClient::with_origin(channel, Uri::from_static("http://localhost"));
        Ok(client.exchange(with_header(message.clone())).await.map(tonic::Response::into_inner))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answered) => answered,
        Err(_) => Err(unreachable(path, "it does not answer")),
    }
}

fn granted(response: ExchangeResponse) -> Result<Granted, CommandError> {
    let authorization_details: Value = serde_json::from_str(&response.authorization_details)
        .map_err(|error| CommandError::failure(format!("the answer is not understood: {error}"), UPDATE))?;
    Ok(Granted {
        access_token: response.access_token,
        token_type: TOKEN_TYPE,
        expires_in: response.expires_in,
        scope: response.scope,
        authorization_details,
        transaction_id: response.transaction_id,
        decision_id: response.decision_id,
    })
}

/// What a refusal means for whoever typed the command.
fn refused(path: &Path, status: &Status) -> CommandError {
    let word = said(status, "error").map(|word| format!("{word}: ")).unwrap_or_default();
    let message = format!("{word}{}", status.message());
    let next = match (said(status, "decision_id"), said(status, "acr_values"), said(status, "retry-after")) {
        (_, _, Some(seconds)) => format!("try again in {seconds} s"),
        (_, Some(acr), _) => format!("let the user sign in with {acr}"),
        (Some(id), ..) => format!("`deputize explain {id}` on the broker tells why"),
        (None, None, None) => {
            "`deputize svid fetch --explain` shows which entries are for this process; one of them needs `exchange`"
                .to_owned()
        }
    };
    match status.code() {
        Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition => {
            CommandError::new(Exit::Denied, message, next)
        }
        Code::Unavailable | Code::ResourceExhausted => {
            CommandError::unreachable(format!("{}: {message}", path.display()), next)
        }
        Code::Unimplemented => CommandError::failure("the socket has no exchange of tokens", UPDATE),
        _ => CommandError::failure(message, next),
    }
}

fn said(status: &Status, name: &str) -> Option<String> {
    let value = status.metadata().get(name)?.to_str().ok()?;
    Some(value.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect())
}

fn no_key(error: impl std::fmt::Display) -> CommandError {
    CommandError::failure(error, "give --dpop-key FILE with a good key")
}

/// Below the issuer: what proofs at the socket are for.
const ENDPOINT: &str = "/spiffe/exchange";
const PATIENCE: Duration = Duration::from_secs(40);
const UPDATE: &str = "use a broker of this program's version";
const MAX_SAID: usize = 512;
