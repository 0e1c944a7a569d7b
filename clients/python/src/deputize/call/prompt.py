"""A prompt's arguments as a schema: prompts list names of what they take (MCP, "Prompts"), and all of it is text.

So a prompt's arguments are held against what was approved as a tool's are.
"""

from __future__ import annotations

from collections.abc import Mapping

from .strict_json import JsonObject, JsonValue


def arguments_schema(definition: Mapping[str, JsonValue]) -> JsonObject:
    """The schema of the arguments that a prompt's definition lists.

    Raises:
        ValueError: where the list can be read in two ways.
    """
    listed = definition.get("arguments", [])
    if not isinstance(listed, list) or len(listed) > _MAX_ARGUMENTS:
        raise ValueError("has arguments that are no list, or more than 100")
    properties: JsonObject = {}
    required: list[JsonValue] = []
    for argument in listed:
        name = argument.get("name") if isinstance(argument, dict) else None
        if not isinstance(argument, dict) or not isinstance(name, str) or name in properties:
            raise ValueError("has an argument without a name, or two of one name")
        properties[name] = {"type": "string"}
        is_required = argument.get("required", False)
        if not isinstance(is_required, bool):
            raise ValueError("has an argument whose `required` is neither true nor false")
        if is_required:
            required.append(name)
    schema: JsonObject = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


_MAX_ARGUMENTS = 100
