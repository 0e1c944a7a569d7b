"""Server-sent events (WHATWG HTML §9.2), read within bounds and written anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from .guard.sessions import is_name


class EventsRefused(ValueError):
    """An event that is too long, or no UTF-8."""


@dataclass(slots=True)
class Event:
    """One event."""

    data: str = ""
    """`data`, its lines joined."""
    id: str | None = None
    """`id`: the cursor with which a broken stream is resumed."""
    retry_ms: int | None = None

    def to_bytes(self) -> bytes:
        """The event as it goes over the wire."""
        lines = [] if self.id is None else [f"id: {self.id}"]
        if self.retry_ms is not None:
            lines.append(f"retry: {self.retry_ms}")
        lines += [f"data: {line}" for line in self.data.split("\n")]
        return "\n".join([*lines, "", ""]).encode()


@dataclass(slots=True)
class EventParser:
    """Reads a stream of events piece by piece."""

    max_event_bytes: int
    _buffer: bytearray = field(default_factory=bytearray)
    _searched: int = 0
    """Up to where the buffer is known to hold no end of a line."""
    _after_return: bool = False
    """The last line ended in a carriage return: a line feed that follows belongs to it."""
    _size: int = 0
    """Bytes of the event that is being read."""
    _data: list[str] = field(default_factory=list)
    _event: Event = field(default_factory=Event)
    _is_empty: bool = True

    def push(self, piece: bytes) -> list[Event]:
        """Take in a piece; gives back the events that are whole now.

        Raises:
            EventsRefused: for what cannot be read within bounds.
        """
        self._buffer += piece
        events: list[Event] = []
        while (line := self._next_line()) is not None:
            self._size += len(line)
            if self._size > self.max_event_bytes:
                raise EventsRefused("an event is too long")
            event = self._end_line(line)
            if event is not None:
                events.append(event)
        if self._size + len(self._buffer) > self.max_event_bytes:
            raise EventsRefused("an event is too long")
        return events

    def _next_line(self) -> bytes | None:
        buffer = self._buffer
        if self._after_return and buffer:
            self._after_return = False
            if buffer[0] == _LF:
                del buffer[0]
        ends = [at for at in (buffer.find(b"\n", self._searched), buffer.find(b"\r", self._searched)) if at >= 0]
        if not ends:
            self._searched = len(buffer)
            return None
        end = min(ends)
        self._after_return = buffer[end] == _CR
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._searched = 0
        return line

    def _end_line(self, line: bytes) -> Event | None:
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise EventsRefused("events that are not UTF-8") from None
        if not text:
            event, is_empty = self._event, self._is_empty
            event.data = "\n".join(self._data)
            self._event, self._data, self._is_empty, self._size = Event(), [], True, 0
            return None if is_empty else event
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id" and is_name(value):
            # One that no header could carry back is of no use.
            self._event.id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self._event.retry_ms = int(value)
        else:
            return None
        self._is_empty = False
        return None


_LF, _CR = b"\n\r"
_MAX_RETRY_DIGITS = 9
