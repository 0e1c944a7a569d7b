"""Each tool, prompt and resource of a snapshot, checked and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from deputize.call.claims import Level
from deputize.call.closing import SchemaRefused
from deputize.call.digest import prompt_digest, resource_digest, tool_digest
from deputize.call.prompt import arguments_schema
from deputize.call.resource import is_entry
from deputize.call.schema import PinnedSchema
from deputize.call.strict_json import JsonObject, JsonRefused, JsonValue


class SnapshotRefused(ValueError):
    """A snapshot that is not taken into use."""


@dataclass(frozen=True, slots=True, repr=False)
class Pinned:
    """A tool, prompt or resource as calls are held against it."""

    definition: JsonObject
    """As approved; of a resource, what is shown of it."""
    digest: str
    schema: PinnedSchema
    least_level: Level
    tier: str
    enabled: bool = True
    """A resource that is switched off takes what it names out of a wider entry."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that a snapshot pins."""

    member: str
    """Its member in the snapshot."""
    described_by: str
    """The member of each that is digested and shown."""
    named_by: str
    digest: Callable[[Mapping[str, JsonValue]], str]
    stated_digest: str | None
    """The member with the digest that was approved."""
    others: frozenset[str] = frozenset()


def pin_all(documents: JsonValue, kind: Kind) -> dict[str, Pinned]:
    """Check and compile all of a kind.

    Raises:
        SnapshotRefused: where one does not hold, or two have one name.
    """
    if not isinstance(documents, list) or len(documents) > _MAX_OF_A_KIND:
        raise SnapshotRefused(f"malformed snapshot: {kind.member} is no list, or longer than 500")
    pinned: dict[str, Pinned] = {}
    for document in documents:
        name, one = _pin(document, kind)
        if name in pinned:
            raise SnapshotRefused(f"snapshot {kind.member} {name!r}: stands twice")
        pinned[name] = one
    return pinned


def _pin(document: JsonValue, kind: Kind) -> tuple[str, Pinned]:
    members = {kind.described_by, "least_level", "tier"} | kind.others
    members |= set() if kind.stated_digest is None else {kind.stated_digest}
    definition = document.get(kind.described_by) if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.keys() != members or not isinstance(definition, dict):
        raise SnapshotRefused(f"malformed snapshot: one of {kind.member} has members missing or unknown")
    name, level, tier = definition.get(kind.named_by), document["least_level"], document["tier"]
    enabled = document.get("enabled", True)
    if not isinstance(name, str) or not name or level not in ("L1", "L2", "L3") or not isinstance(tier, str):
        raise SnapshotRefused(f"snapshot {kind.member} {name!r}: each needs a name, a tier and a level above L0")
    if not isinstance(enabled, bool):
        raise SnapshotRefused(f"snapshot {kind.member} {name!r}: enabled is neither true nor false")
    try:
        digest = kind.digest(definition)
        if kind.stated_digest is not None and digest != document[kind.stated_digest]:
            raise SnapshotRefused(f"snapshot {kind.member} {name!r}: its definition is not the one of its digest")
        schema = PinnedSchema(_schema_of(definition, kind))
    except (JsonRefused, SchemaRefused, ValueError) as refused:
        raise SnapshotRefused(f"snapshot {kind.member} {name!r}: {refused}") from None
    return name, Pinned(definition, digest, schema, Level[str(level)], tier, enabled)


def _schema_of(definition: JsonObject, kind: Kind) -> JsonValue:
    if kind is TOOLS:
        if "inputSchema" not in definition:
            raise ValueError("it has no inputSchema")
        return definition["inputSchema"]
    if kind is PROMPTS:
        return arguments_schema(definition)
    if not is_entry(str(definition["uri"])):
        raise ValueError("its URI names no resource")
    # A resource takes no arguments.
    return arguments_schema({})


TOOLS: Final = Kind("tools", "definition", "name", tool_digest, "tool_digest")
PROMPTS: Final = Kind("prompts", "definition", "name", prompt_digest, "prompt_digest")
RESOURCES: Final = Kind("resources", "shown", "uri", resource_digest, None, frozenset({"enabled"}))
_MAX_OF_A_KIND = 500
