//! The exchange at the desk of the broker in this process: the same line as that of the token endpoint.

use deputize_issuer::{
    authenticate::{Possession, Presented, PresentedProof},
    clock,
    desk::Desk,
    error::IssueError,
    exchange::{Bearing, TokenAnswer, TokenRequest, exchange},
    svid::SpiffeDoor,
    words::Words,
    workload::Workload,
};
use uuid::Uuid;

use super::{NotExchanged, parameters::Fields};
use crate::proto::exchange::{ExchangeRequest, ExchangeResponse};

/// What a process asks.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The process.
    pub workload: &'a Workload,
    /// Name of the entry by which it does.
    pub entry: &'a str,
    /// What it asks.
    pub message: &'a ExchangeRequest,
}

/// A tool-call token for this process, by this entry, as the process is told of it.
///
/// # Errors
/// [`NotExchanged`]: whatever the desk refuses. It is on record then, or counted.
pub(crate) async fn exchange_at(
    (desk, door): (&Desk, &SpiffeDoor),
    asking: Asking<'_>,
) -> Result<ExchangeResponse, NotExchanged> {
    let decision_id = match clock::new_id(desk.clock.as_ref()) {
        Ok(id) => id,
        Err(error) => {
            return Err(NotExchanged { words: Words::from(&IssueError::from(error)), decision_id: None });
        }
    };
    let exchanged = exchange_by((desk, door), asking, decision_id).await;
    exchanged.map_err(|error| {
        let mut words = Words::from(&error);
        if matches!(error, IssueError::Proof(_)) {
            // A new proof is needed anyway: with this it does not take two.
            words.nonce = Some(desk.nonces.make(desk.clock.uptime()));
        }
        NotExchanged { words, decision_id: Some(decision_id) }
    })
}

/// A tool-call token for this process, by this entry: here and for processes of other nodes.
///
/// # Errors
/// Whatever the desk refuses. It is on record then, or counted.
pub async fn exchange_by(
    (desk, door): (&Desk, &SpiffeDoor),
    Asking { workload, entry, message }: Asking<'_>,
    decision_id: Uuid,
) -> Result<ExchangeResponse, IssueError> {
    let counted = |error: IssueError| {
        desk.refusals.count(error.reason());
        error
    };
    let fields = Fields::of(message).map_err(counted)?;
    let request = TokenRequest::parse(&fields).map_err(counted)?;
    if message.dpop.is_empty() {
        return Err(counted(IssueError::Proof("proof_missing")));
    }
    let htu = door.exchange_endpoint();
    let proof = Some(PresentedProof { header: &message.dpop, htu: &htu });
    let shown = Possession { proof, certificate: None };
    let presented = Presented::Workload { workload, entry };
    let token = exchange(desk, Bearing { decision_id, presented, shown }, &request).await?;
    let answer = TokenAnswer::of(&token, decision_id);
    let details = serde_json::to_string(answer.authorization_details);
    let details = details.map_err(|_| IssueError::Internal("authorization_details_unwritable"))?;
    Ok(ExchangeResponse {
        access_token: answer.access_token.to_owned(),
        issued_token_type: answer.issued_token_type.to_owned(),
        token_type: answer.token_type.to_owned(),
        expires_in: answer.expires_in,
        scope: answer.scope.to_owned(),
        authorization_details: details,
        transaction_id: answer.transaction_id.to_owned(),
        decision_id: answer.decision_id.to_string(),
        dpop_nonce: desk.nonces.make(desk.clock.uptime()),
    })
}
