//! The message as the parameters of a token request.

use deputize_issuer::{
    error::IssueError,
    exchange::{Parameters, TOKEN_EXCHANGE, check_value},
};

use crate::proto::exchange::ExchangeRequest;

/// The fields that are parameters, by their names.
///
/// INVARIANT: each that is there has passed [`check_value`].
pub(super) struct Fields<'m>(&'m ExchangeRequest);

impl<'m> Fields<'m> {
    /// Those of this message.
    ///
    /// # Errors
    /// [`IssueError::Request`]: one has a value that no parameter has.
    pub(super) fn of(message: &'m ExchangeRequest) -> Result<Self, IssueError> {
        let fields = Self(message);
        let mut present =
            NAMES.iter().filter_map(|name| fields.field(name)).filter(|value| !value.is_empty());
        present.try_for_each(check_value)?;
        Ok(fields)
    }

    fn field(&self, name: &str) -> Option<&'m str> {
        let message = self.0;
        Some(match name {
            "subject_token" => &message.subject_token,
            "subject_token_type" => &message.subject_token_type,
            "resource" => &message.resource,
            "scope" => &message.scope,
            "authorization_details" => &message.authorization_details,
            "transaction_id" => &message.transaction_id,
            "approval_id" => &message.approval_id,
            "parent_request_id" => &message.parent_request_id,
            "host" => &message.host,
            "model" => &message.model,
            "workflow" => &message.workflow,
            "traceparent" => &message.traceparent,
            _ => return None,
        })
    }
}

impl Parameters for Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            // There is no other at this door.
            "grant_type" => Some(TOKEN_EXCHANGE),
            name => self.field(name).filter(|value| !value.is_empty()),
        }
    }
}

/// Those of [`Fields::field`].
const NAMES: [&str; 12] = [
    "subject_token",
    "subject_token_type",
    "resource",
    "scope",
    "authorization_details",
    "transaction_id",
    "approval_id",
    "parent_request_id",
    "host",
    "model",
    "workflow",
    "traceparent",
];
