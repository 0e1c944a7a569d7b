"""Sessions of MCP up to 2025-11-25: whose they are, what the server asked in them, which events it sent.

To anyone but its owner a session does not exist.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from deputize.call.claims import ToolCallClaims
from deputize.call.strict_json import serialize
from deputize.clock import Clock

from .refusal import Refused


@dataclass(frozen=True, slots=True)
class Caller:
    """A person through these actors and this client, whatever the key: a client has as many keys as it likes."""

    tenant: str
    person: str
    client: str
    actors: tuple[str, ...]

    @classmethod
    def of(cls, claims: ToolCallClaims) -> Caller:
        """The caller that these claims speak of."""
        return cls(claims.tenant, claims.sub, claims.client_id, tuple(claims.actors()))


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a session is: this caller's, with this key."""

    caller: Caller
    key: tuple[str, str]

    @classmethod
    def of(cls, claims: ToolCallClaims) -> Owner:
        """The owner that these claims speak of."""
        return cls(Caller.of(claims), (claims.cnf.method, claims.cnf.thumbprint))


@dataclass(slots=True, eq=False)
class Session:
    """One session."""

    id: str
    owner: Owner
    used: float
    """Uptime of the last request in it."""
    under_way: int = 0
    """Requests and streams of it that are served now."""
    _asked: set[str] = field(default_factory=set)
    """Requests of the server that wait for the client's response."""
    _requested: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """Methods of the client's requests that wait for the server's response, the newest last."""
    _fixed: set[str] = field(default_factory=set)
    """Calls whose token fixes what they do: under way, or left alone before they had their response."""
    _cursors: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_CURSORS))

    def note_asked(self, request_id: str | int) -> bool:
        """Note that the server asks something.

        False where it asks too much, or where the answer could steer what a call's token fixes.
        """
        key = _key(request_id)
        if self._fixed or len(self._asked) >= _MAX_ASKED or key in self._asked:
            return False
        self._asked.add(key)
        return True

    def take_asked(self, request_id: str | int) -> None:
        """The client answers what the server asked: once.

        Raises:
            Refused: where the server asked nothing with this id.
        """
        key = _key(request_id)
        if key not in self._asked:
            raise Refused("not_asked")
        self._asked.remove(key)

    def note_requested(self, request_id: str | int, method: str, *, fixed: bool) -> None:
        """Note a request of the client, so that its response is known on whatever stream it comes.

        `fixed`: it is a call whose token fixes what it does. Until it has its response, the server asks nothing.

        Raises:
            Refused: for an id that is in use. A server that looks for streams by id would send one response in place of
                another, and what is filtered for one method is not for another. And where nothing can be forgotten.
        """
        key = _key(request_id)
        if key in self._requested:
            raise Refused("id_in_use")
        if len(self._requested) >= _MAX_REQUESTED:
            # INVARIANT: what is fixed is never forgotten before its response: meanwhile the server asks nothing.
            oldest = next((each for each in self._requested if each not in self._fixed), None)
            if oldest is None:
                raise Refused("limited", "too many calls under way in one session", retry_after_seconds=1)
            del self._requested[oldest]
        self._requested[key] = method
        if fixed:
            self._fixed.add(key)

    def take_requested(self, request_id: str | int) -> str | None:
        """The method of a request that has no response yet; from now on it has."""
        key = _key(request_id)
        self._fixed.discard(key)
        return self._requested.pop(key, None)

    def note_cursor(self, cursor: str) -> None:
        """Note that an event goes to the client."""
        self._cursors.append(cursor)

    def knows_cursor(self, cursor: str) -> bool:
        """Whether an event with this cursor went to the client in this session: only such a stream is resumed."""
        return cursor in self._cursors


class Sessions:
    """All sessions. Bounded, with a share for each owner and person; never evicts one that is not idle."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def check_room(self, claims: ToolCallClaims) -> None:
        """Check that there is room for one session more of this caller.

        Raises:
            Refused: where there is none.
        """
        owner = Owner.of(claims)
        if not self._has_room(owner):
            self._end_idle()
        if not self._has_room(owner):
            raise Refused("no_room")

    def begin(self, session_id: str, claims: ToolCallClaims) -> Session:
        """The server began a session for this caller.

        Raises:
            Refused: where there is no room, or the server gave an id that another session has, or none that it can be.
        """
        if not is_name(session_id) or session_id in self._sessions:
            raise Refused("server_error", "a session id that is none, or in use")
        self.check_room(claims)
        session = Session(session_id, Owner.of(claims), self._clock.uptime())
        self._sessions[session_id] = session
        return session

    def find(self, session_id: str, claims: ToolCallClaims) -> Session:
        """The session with this id, if it is this caller's. Another's answers as one that never was.

        Raises:
            Refused: where there is none; MCP then has the client begin anew.
        """
        session = self._sessions.get(session_id)
        if session is None or session.owner != Owner.of(claims):
            raise Refused("session")
        if self._is_idle(session):
            self.forget(session)
            raise Refused("session", "idle for too long")
        session.used = self._clock.uptime()
        return session

    def forget(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.pop(session.id, None)

    def _has_room(self, owner: Owner) -> bool:
        of_owner = sum(session.owner == owner for session in self._sessions.values())
        of_person = sum(session.owner.caller.person == owner.caller.person for session in self._sessions.values())
        is_theirs = of_owner < _MAX_OF_ONE_OWNER and of_person < _MAX_OF_ONE_PERSON
        return is_theirs and len(self._sessions) < _MAX_SESSIONS

    def _end_idle(self) -> None:
        for session in [session for session in self._sessions.values() if self._is_idle(session)]:
            self.forget(session)

    def _is_idle(self, session: Session) -> bool:
        return session.under_way == 0 and self._clock.uptime() - session.used > _IDLE_SECONDS


def is_name(text: str) -> bool:
    """Whether a session id or a cursor can be one: visible ASCII of bounded length."""
    return 0 < len(text) <= _MAX_NAME_CHARACTERS and all("!" <= character <= "~" for character in text)


def _key(request_id: str | int) -> str:
    """As JSON, so that a text is no number."""
    return serialize(request_id).decode()


_MAX_SESSIONS = 10_000
_MAX_OF_ONE_OWNER = 64
_MAX_OF_ONE_PERSON = 256
_MAX_ASKED = 64
_MAX_REQUESTED = 256
_MAX_CURSORS = 1024
_MAX_NAME_CHARACTERS = 512
_IDLE_SECONDS = 1800.0
