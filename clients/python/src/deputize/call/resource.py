"""Which resources a registry entry names: one URI, or with `/*` at its end everything below.

URIs have no normal form here: they are compared character by character, and below a prefix nothing is admitted that
could lead out of it, or that could be read as what a narrower entry names.
"""

from __future__ import annotations

import re
import string
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
    """Whether a registry may have this as an entry: a URI, or with `/*` at its end all that lies below it.

    It is spelt as requests below a prefix have to be, where nothing is encoded. To a server that decodes or folds case
    (RFC 3986 section 6.2.2) another spelling would be the same thing, and to a wider entry one of its own.
    """
    if not _is_absolute(entry) or _has_needless_escape(entry):
        return False
    scheme, host = entry.partition(":")[0], _host_of(entry)
    if f"{scheme}{host}" != f"{scheme}{host}".lower() or "@" in host:
        return False
    if any(segment in {".", ".."} for segment in re.split(r"[/?#]", entry)):
        return False
    prefix = _prefix_of(entry)
    if prefix is None:
        return True
    _, slashes, below = prefix.partition("://")
    return (
        ".." not in prefix and not any(each in prefix for each in "%?#*") and slashes != "" and below.strip("/") != ""
    )


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


def _has_needless_escape(uri: str) -> bool:
    escapes = uri.split("%")[1:]
    return any(_ESCAPED.match(escape) is None or chr(int(escape[:2], 16)) in _PLAIN for escape in escapes)


def _host_of(uri: str) -> str:
    """With user info and port, where there are any."""
    return re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0]


def _prefix_of(entry: str) -> str | None:
    return entry[:-1] if entry.endswith("/*") else None


def _is_below(rest: str) -> bool:
    if not rest or ".." in rest or any(character in rest for character in "%\\?#"):
        return False
    segments = rest.split("/")
    climbs = any(segment == "." or segment.startswith(".;") for segment in segments)
    return not climbs and "" not in segments


_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", re.ASCII)
_ESCAPED: Final = re.compile(r"[0-9A-Fa-f]{2}")
# What may stand as it is below a prefix, where nothing is encoded; and a backslash, which is none for anybody.
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "-._~:/[]@!$&'()*+,;=\\")
