"""The way of a guarded server to the broker's AWS credentials."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deputize.call.digest import ABSENT
from deputize.call.strict_json import MAX_DEPTH, JsonObject, JsonValue, parse_value
from deputize.client import AwsRequest, Client, ClientOptions
from deputize.clock import Clock
from deputize.errors import ConfigurationError
from deputize.guard.settings import GuardSettings

from .credentials import AwsCredentials, Kept


class BrokerDoor:
    """Asks as the server's own client, from whichever thread a tool runs in."""

    def __init__(self, settings: GuardSettings, clock: Clock, client: Client | None, *, may_make_one: bool) -> None:
        self._settings = settings
        self._clock = clock
        self._client = client
        self._may_make_one = may_make_one
        self._lock = threading.Lock()

    def kept_for(self, token: str, rebuilt_body: bytes, check: Callable[[], None] = lambda: None) -> Kept:
        """The credentials of a call: nothing is asked yet.

        Args:
            token: The call's token.
            rebuilt_body: The message that was verified. What is asked with is read from there, whatever a tool made of
                its arguments meanwhile.
            check: Raises where the call is good no longer.
        """
        return Kept(lambda: self._ask(token, rebuilt_body), self._clock, check)

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _ask(self, token: str, rebuilt_body: bytes) -> AwsCredentials:
        message = parse_value(rebuilt_body, MAX_DEPTH + 2)
        params = message.get("params") if isinstance(message, dict) else None
        params = params if isinstance(params, dict) else {}
        request = AwsRequest(
            token=token,
            arguments=_object(params.get("arguments", {})),
            input_responses=params.get("inputResponses", ABSENT),
            request_state=params.get("requestState", ABSENT),
        )
        return self._connected().aws_credentials(request)

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                if not self._may_make_one:
                    raise ConfigurationError(
                        "the middleware was given an AsyncClient, and no Client for AWS credentials",
                        "give both: MiddlewareOptions(broker=…, aws_broker=…)",
                    )
                settings = self._settings
                options = ClientOptions(clock=self._clock, encryption_key=settings.encryption_key)
                self._client = Client(settings.issuer, settings.client_id, settings.private_key, options)
            return self._client


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}
