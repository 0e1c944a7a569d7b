"""Credentials of one call: asked for once, kept until their window ends, and never shown."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from deputize.clock import Clock
from deputize.errors import (
    AwsCredentialsExpiredError,
    ConfigurationError,
    DeputizeError,
    ExchangeError,
    ProtocolError,
    RetryLaterError,
)

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True, slots=True, repr=False)
class AwsCredentials:
    """Credentials of one role session. They show nothing of themselves, and cannot be pickled."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: datetime
    """The end of the window, in UTC: what the credentials can do ends there."""
    account_id: str | None = None
    """The account of the role."""
    decision_id: str | None = None
    """What an operator asks `deputize explain` about, and the name of the session in AWS's own log."""

    def __repr__(self) -> str:
        return f"AwsCredentials(expires_at={self.expires_at.isoformat()!r}, decision_id={self.decision_id!r})"

    def __reduce__(self) -> NoReturn:
        raise _no_pickle()


class Kept:
    """What one call was given. Everything that asks for it shares it: one request, whoever asks at once."""

    def __init__(
        self, ask: Callable[[], AwsCredentials], clock: Clock, check: Callable[[], None] = lambda: None
    ) -> None:
        """Nothing is asked yet.

        Args:
            ask: Makes the request.
            clock: Says when the window is over.
            check: Raises where the call that it is for is good no longer; then nothing is given, and nothing kept.
        """
        self.clock = clock
        self._ask = ask
        self._check = check
        self._lock = threading.Lock()
        self._answer: Future[AwsCredentials] | None = None
        self._ends = (0.0, 0.0)
        """By the wall's clock, and by the one that nobody puts back."""
        self._refused: DeputizeError | None = None
        self._refused_until = 0.0

    def get(self) -> AwsCredentials:
        """The credentials, from any thread."""
        answer, is_first = self._begin()
        if is_first:
            self._ask_for_all(answer)
        credentials = answer.result()
        # It may have taken a while.
        self._refuse_revoked()
        return credentials

    async def aget(self) -> AwsCredentials:
        """The credentials, in an event loop, which meanwhile runs on."""
        answer, is_first = self._begin()
        if is_first:
            asyncio.get_running_loop().run_in_executor(None, self._ask_for_all, answer)
        credentials = await asyncio.wrap_future(answer)
        self._refuse_revoked()
        return credentials

    def _refuse_revoked(self) -> None:
        """INVARIANT: nothing is given for a call that is good no longer, and what was kept of it goes."""
        try:
            self._check()
        except DeputizeError:
            with self._lock:
                self._answer = None
            raise

    def _begin(self) -> tuple[Future[AwsCredentials], bool]:
        """The answer that there is or will be, and whether it is for who asks here to make the request."""
        self._refuse_revoked()
        with self._lock:
            if self._answer is not None and self._answer.done() and self._is_over():
                # INVARIANT: never used past its window, and never asked for again: a call is given one window.
                self._answer = None
                self._refuse(AwsCredentialsExpiredError(), math.inf)
            if self._refused is not None and self.clock.uptime() < self._refused_until:
                raise self._refused.with_traceback(None)
            if self._answer is not None:
                return self._answer, False
            self._answer = Future()
            # Who waits may be cancelled; what others wait for as well may not.
            self._answer.set_running_or_notify_cancel()
            return self._answer, True

    def _ask_for_all(self, answer: Future[AwsCredentials]) -> None:
        """Make the request that all wait for."""
        try:
            credentials = self._ask()
            ends = self._ends_of(credentials)
        except BaseException as error:  # noqa: BLE001 - handed to everybody who waits
            with self._lock:
                self._answer = None
                if isinstance(error, DeputizeError):
                    self._refuse(error, _holds_for(error))
            answer.set_exception(error)
            return
        with self._lock:
            self._ends = ends
        answer.set_result(credentials)

    def _ends_of(self, credentials: AwsCredentials) -> tuple[float, float]:
        end = credentials.expires_at.timestamp()
        remaining = end - self.clock.now_seconds()
        if remaining <= 0:
            raise AwsCredentialsExpiredError
        if remaining > _LONGEST_WINDOW_SECONDS:
            raise ProtocolError("the AWS credentials end later than any session does")
        return end, self.clock.uptime() + remaining

    def _is_over(self) -> bool:
        return self.clock.now_seconds() >= self._ends[0] or self.clock.uptime() >= self._ends[1]

    def _refuse(self, error: DeputizeError, seconds: float) -> None:
        self._refused, self._refused_until = error, self.clock.uptime() + seconds

    def __repr__(self) -> str:
        return "Kept()"

    def __reduce__(self) -> NoReturn:
        raise _no_pickle()

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self


class CallCredentials:
    """The AWS credentials of one call. They are asked for at the first use, and kept until their window ends.

    With botocore installed it is one of its `RefreshableCredentials` too, for whatever takes such.

    Every way to them raises:
        ExchangeError: where the broker refuses: its classes say what to do.
        AwsCredentialsExpiredError: where the call has run longer than its window.
        UnreachableError: where the broker cannot be reached.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def get(self) -> AwsCredentials:
        """All of them, as they are now. In an event loop take `aget`: this waits for the broker."""
        return self._kept.get()

    async def aget(self) -> AwsCredentials:
        """All of them, as they are now. Once this was awaited, nothing else here waits for the broker any more."""
        return await self._kept.aget()

    @property
    def access_key_id(self) -> str:
        """The access key's id."""
        return self._kept.get().access_key_id

    @property
    def secret_access_key(self) -> str:
        """The access key's secret."""
        return self._kept.get().secret_access_key

    @property
    def session_token(self) -> str:
        """The session's token."""
        return self._kept.get().session_token

    @property
    def expires_at(self) -> datetime:
        """The end of the window, in UTC."""
        return self._kept.get().expires_at

    def boto3_session(self, region_name: str | None = None) -> boto3.Session:
        """A session of boto3 with these credentials, and no others: it looks for none anywhere else.

        Args:
            region_name: The region; by default that of `AWS_DEFAULT_REGION`.

        Raises:
            ConfigurationError: where boto3 is not installed.
        """
        try:
            from .boto import session_with  # noqa: PLC0415 - boto3 is an extra
        except ImportError:
            raise ConfigurationError("boto3 is not installed", "install deputize[aws]") from None
        return session_with(self._kept, region_name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __reduce__(self) -> NoReturn:
        raise _no_pickle()


def credentials_of(kept: Kept) -> CallCredentials:
    """The credentials in the form that is of most use here."""
    try:
        from .boto import BotocoreCredentials  # noqa: PLC0415 - botocore is an extra, and slow to import
    except ImportError:
        return CallCredentials(kept)
    return BotocoreCredentials(kept)


def _holds_for(error: DeputizeError) -> float:
    """How long a refusal is the answer to everybody who asks again, so that a storm of failures is none."""
    if isinstance(error, RetryLaterError):
        return max(error.retry_after_seconds or 0, _SHORTEST_PAUSE_SECONDS)
    is_final = isinstance(error, ExchangeError | AwsCredentialsExpiredError | ConfigurationError)
    return math.inf if is_final else _SHORTEST_PAUSE_SECONDS


def _no_pickle() -> TypeError:
    return TypeError("AWS credentials of a call stay in the process that runs it")


_SHORTEST_PAUSE_SECONDS = 1.0
# AWS gives no role session that lasts longer.
_LONGEST_WINDOW_SECONDS = 12 * 3600
