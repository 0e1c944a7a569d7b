"""What can go wrong: one class for each thing that a caller can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

DenialReason: TypeAlias = Literal["policy", "approval_required", "human", "other"]


class DeputizeError(Exception):
    """Any error of this package.

    Attributes:
        what_to_do: In a sentence.
    """

    def __init__(self, message: str, what_to_do: str) -> None:
        self.what_to_do = what_to_do
        super().__init__(f"{message}: {what_to_do}")


class ConfigurationError(DeputizeError):
    """Something given to this package cannot be used."""


class UnreachableError(DeputizeError):
    """The broker cannot be reached."""


class ProtocolError(DeputizeError):
    """The broker's answer is not one."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "check that the issuer is the address of a Deputize broker of this version")


@dataclass(frozen=True, slots=True)
class Refused:
    """What the broker says of an error. Control characters are taken out, lengths are bounded."""

    status: int
    """HTTP status."""
    error: str
    """`error` (RFC 6749 §5.2 and those that build on it)."""
    description: str
    """`error_description`."""
    decision_id: str | None
    """What an operator asks `deputize explain` about."""


class ExchangeError(DeputizeError):
    """The broker refused: there is no token.

    Attributes:
        status: HTTP status.
        error: `error` of the answer, for example `invalid_target`.
        description: `error_description` of the answer.
        decision_id: What an operator asks `deputize explain` about.
    """

    def __init__(self, refused: Refused, what_to_do: str | None = None) -> None:
        self.status = refused.status
        self.error = refused.error
        self.description = refused.description
        self.decision_id = refused.decision_id
        decision = f" (decision {refused.decision_id})" if refused.decision_id is not None else ""
        what = refused.error or f"status {refused.status}"
        advice = what_to_do if what_to_do is not None else _ADVICE.get(refused.error, _DEFAULT_ADVICE)
        super().__init__(f"{what}: {refused.description}{decision}", advice)


class AccessDeniedError(ExchangeError):
    """Policy or a person said no.

    Attributes:
        reason: Who said no; `approval_required` where a person would have to approve, and approvals are not configured.
    """

    def __init__(self, refused: Refused, reason: DenialReason, what_to_do: str | None = None) -> None:
        self.reason: DenialReason = reason
        super().__init__(refused, what_to_do)


class ApprovalPendingError(ExchangeError):
    """A person has to decide first.

    Attributes:
        approval_id: Put it into the next request's `approval_id`.
        approval_uri: Where the person decides.
        interval_seconds: Least pause between two tries.
        expires_in_seconds: How long the approval waits.
    """

    def __init__(self, refused: Refused, approval_id: str, approval_uri: str | None, times: tuple[int, int]) -> None:
        self.approval_id = approval_id
        self.approval_uri = approval_uri
        self.interval_seconds, self.expires_in_seconds = times
        super().__init__(refused)


class SignInRequiredError(ExchangeError):
    """The user has to sign in again, more strongly or more recently (RFC 9470).

    Attributes:
        acr_values: Any of these satisfies; empty if only the age counts.
        max_age_seconds: How old the sign-in may be.
    """

    def __init__(self, refused: Refused, acr_values: tuple[str, ...], max_age_seconds: int | None) -> None:
        self.acr_values = acr_values
        self.max_age_seconds = max_age_seconds
        super().__init__(refused)


class RetryLaterError(ExchangeError):
    """Over a rate or a budget, or the broker cannot decide now.

    Attributes:
        retry_after_seconds: Seconds after which to come back, where the broker said so.
    """

    def __init__(self, refused: Refused, retry_after_seconds: int | None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(refused, "come back later, after retry_after_seconds where it is given")


class AwsCredentialsExpiredError(DeputizeError):
    """The call has run longer than the window of its AWS credentials. It gets no others."""

    def __init__(self) -> None:
        super().__init__(
            "the window of the call's AWS credentials is over",
            "do what needs them early in the call, have the template's window widened, or let the agent call again",
        )


class ToolChangedError(DeputizeError):
    """The server offers a tool under another definition than the one that was approved: nothing was sent.

    Attributes:
        tool: The tool's name.
        live_digest: Digest of the definition that the server gives now; `None` where it lists no such tool, or two.
        approved_digest: Digest of the approved definition, as the token has it.
        decision_id: The decision that made the token, where one was made.
    """

    def __init__(
        self, tool: str, live_digest: str | None, approved_digest: str | None = None, decision_id: str | None = None
    ) -> None:
        self.tool = tool
        self.live_digest = live_digest
        self.approved_digest = approved_digest
        self.decision_id = decision_id
        if live_digest is None and decision_id is None:
            super().__init__(f"the server does not list {tool[:128]!r}", "call a tool that it lists")
            return
        super().__init__(
            f"the server's definition of {tool[:128]!r} is not the approved one (decision {decision_id})",
            "have the change reviewed in the registry, or distrust the server",
        )


class UnsafeRequestError(DeputizeError):
    """A request that no token may go with: not strict JSON, a batch, or to another address."""


_DEFAULT_ADVICE = "ask the operator of the broker, with the decision's id"
_ADVICE = {
    "invalid_request": "check the subject token: its issuer, audience and age (`deputize doctor --token FILE`)",
    "invalid_target": "check the server's resource URI, and whether it is in the registry and enabled",
    "invalid_scope": "ask for less: the user or this client may not do all of it",
    "invalid_authorization_details": "check the tool's name and its arguments against the approved input schema",
    "invalid_client": "check client_id and private key against the broker's configuration",
    "invalid_dpop_proof": "check this machine's clock",
    "use_dpop_nonce": "something between here and the broker takes away the DPoP-Nonce header",
    "access_denied": "ask the operator which policy decided (`deputize explain`), or ask for less",
    "authorization_pending": "come back with the approval's id once the person has decided",
    "slow_down": "wait longer between two tries",
    "expired_token": "nobody decided in time: ask again, without the approval's id",
    "insufficient_user_authentication": "have the user sign in again, as acr_values and max_age_seconds say",
}
