"""AWS credentials for the call of a token: what is asked, and what is made of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from deputize.aws.answer import read_process
from deputize.aws.credentials import AwsCredentials
from deputize.call.digest import ABSENT
from deputize.call.strict_json import JsonObject
from deputize.errors import ConfigurationError

from .answer import Received, read_refusal
from .request import exact
from .sealed import DecryptionKey


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class AwsRequest:
    """Asks for credentials as the server that a token is for."""

    token: str
    """The token that the server was called with."""
    arguments: JsonObject = field(default_factory=dict)
    """The arguments of that call, exactly."""
    input_responses: object = ABSENT
    """`inputResponses` of the call, if it has them."""
    request_state: object = ABSENT
    """`requestState` of the call, if it has it."""
    template: str | None = None
    """The role template that is expected; another is refused."""

    def form(self) -> list[tuple[str, str]]:
        """The parameters, without those that prove the client.

        Raises:
            UnsafeRequestError: where arguments have no exact form as JSON.
        """
        form = [
            ("subject_token", self.token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("arguments", exact(self.arguments)),
        ]
        steering = (("input_responses", self.input_responses), ("request_state", self.request_state))
        form += [(name, exact(value)) for name, value in steering if value is not ABSENT]
        return form if self.template is None else [*form, ("template", self.template)]

    def __repr__(self) -> str:
        return f"AwsRequest(template={self.template!r})"


def read_credentials(received: Received, key: DecryptionKey | None) -> AwsCredentials:
    """Read the answer to a request for AWS credentials.

    Raises:
        ExchangeError: where the broker refused.
        ConfigurationError: where the answer is sealed and there is no key, or the other way round.
        ProtocolError: where the answer is none.
    """
    if received.status != 200:
        raise read_refusal(received, _ADVICE)
    media_type = received.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/jose":
        if key is None:
            raise ConfigurationError(
                "the broker's answer is sealed, and there is no key to open it",
                "give encryption_key: the private half of the client's key with `use: enc` at the broker",
            )
        return read_process(key.open(received.body))
    if key is not None:
        # INVARIANT: where a key is configured, only sealed answers are taken: what the broker seals, whoever ends TLS
        # on the way cannot read. Who sealed it a seal does not say, for anyone can seal to a public key: that rests on
        # TLS.
        raise ConfigurationError(
            "the broker's answer is not sealed, though there is a key for that",
            "put the public half into the client's JWKS at the broker, with `use: enc`, and see who ends TLS between",
        )
    return read_process(received.body)


_ADVICE = {
    "invalid_request": "ask as the server that was called, with that call's arguments, while its token is fresh",
    "access_denied": "have an operator ask `deputize explain` which template or policy decided",
    "not_found": "this broker gives no AWS credentials: have `aws` configured there",
    "server_error": "AWS refused the role session: have an operator ask `deputize explain` what it said",
}
