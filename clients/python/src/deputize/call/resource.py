"""Which resources a registry entry names: one URI, or with `/*` at its end everything below.

URIs have no normal form here: they are compared character by character, and below a prefix nothing is admitted that
could lead out of it, or that could be read as what a narrower entry names.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

MAX_URI_BYTES: Final = 1024
"""The longest URI of a resource, in bytes."""


def is_uri(uri: str) -> bool:
    """Whether a request may name this as a resource at all: an absolute URI of RFC 3986's characters.

    None that is an entry for everything below (`…/*`): in a token's scope it could be read so.
    """
    return _is_absolute(uri) and _prefix_of(uri) is None


def is_entry(entry: str) -> bool:
    """Whether a snapshot may have this as an entry: a URI, or one with `/*` at its end."""
    return _is_absolute(entry)


def names(entry: str, uri: str) -> bool:
    """Whether one entry names this URI."""
    if not is_uri(uri):
        return False
    prefix = _prefix_of(entry)
    if prefix is None:
        return entry == uri
    return uri.startswith(prefix) and _is_below(uri[len(prefix) :])


def find(entries: Container[str], uri: str) -> str | None:
    """The entry that decides about this URI, where it names it.

    The URI itself goes before a prefix, a longer prefix before a shorter one. An entry that is switched off decides
    too, so `entries` must have it.
    """
    if not is_uri(uri):
        return None
    if uri in entries:
        return uri
    if f"{uri}/" in entries or f"{uri}/*" in entries:
        # To many servers `…/drafts` and `…/drafts/` are one: who speaks of one of them, or of all in it, decides for
        # both.
        return None
    slash = uri.rfind("/")
    while slash >= 0:
        entry = f"{uri[: slash + 1]}*"
        if entry in entries:
            # The longest prefix decides: where it admits nothing, no shorter one does.
            return entry if _is_below(uri[slash + 1 :]) else None
        slash = uri.rfind("/", 0, slash)
    return None


def _is_absolute(uri: str) -> bool:
    return len(uri) <= MAX_URI_BYTES and _URI.fullmatch(uri) is not None


def _prefix_of(entry: str) -> str | None:
    return entry[:-1] if entry.endswith("/*") else None


def _is_below(rest: str) -> bool:
    if not rest or ".." in rest or any(character in rest for character in "%\\?#"):
        return False
    segments = rest.split("/")
    climbs = any(segment == "." or segment.startswith(".;") for segment in segments)
    return not climbs and "" not in segments


_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
