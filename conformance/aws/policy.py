"""IAM policies: their grammar, and whether one allows a request.

Written from IAM's reference of policy elements, and independent of both Deputize's own evaluator and the emulator's.

What it holds to, in IAM's order: an explicit Deny wins; else an Allow is needed. Names of actions and of condition
keys do not tell case apart, ARNs and values do. `*` and `?` are wildcards where IAM has them; `${*}`, `${?}` and `${$}`
stand for the characters, `${key}` for a value of the request. A negated comparison holds where its key is missing, any
other does not; `...IfExists` holds where it is missing; `ForAllValues` holds for no values, `ForAnyValue` does not.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from identity import distinct

Context = Mapping[str, str | list[str]]
"""Condition keys in lower case, each with its value or its values."""


class Malformed(Exception):
    """A document that is no policy."""


@dataclass(frozen=True)
class Asked:
    """A request as policies see it."""

    action: str
    resource: str
    context: Context


def parse(text: str, *, kind: str = "session") -> list[dict[str, Any]]:
    """The statements of a policy of this kind: `session` has no Principal, `trust` has one and no Resource."""
    try:
        document = json.loads(text, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"This policy contains invalid Json: {error}") from error
    if not isinstance(document, dict) or not document.keys() <= {"Version", "Id", "Statement"}:
        raise Malformed("Syntax errors in policy: unknown members")
    if document.get("Version", "2008-10-17") not in ("2012-10-17", "2008-10-17"):
        raise Malformed("Syntax errors in policy: Version")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements:
        raise Malformed("Syntax errors in policy: Statement")
    for statement in statements:
        check_statement(statement, kind)
    ids = [statement["Sid"] for statement in statements if "Sid" in statement]
    if len(set(ids)) != len(ids):
        raise Malformed("Statement IDs (SID) in a single policy must be unique")
    return statements


def check_statement(statement: object, kind: str) -> None:
    """The grammar of one statement."""
    members = {"Sid", "Effect", "Action", "NotAction", "Condition"}
    members |= {"Resource", "NotResource"} if kind == "session" else {"Principal"}
    if not isinstance(statement, dict) or not statement.keys() <= members:
        raise Malformed("Syntax errors in policy: a statement has members that do not belong there")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise Malformed("Syntax errors in policy: Effect")
    if not re.fullmatch(r"[A-Za-z0-9]*", str(statement.get("Sid", ""))):
        raise Malformed("Statement IDs (SID) must be alpha-numeric")
    pairs = [("Action", "NotAction")] + ([("Resource", "NotResource")] if kind == "session" else [])
    for one, other in pairs:
        if (one in statement) == (other in statement):
            raise Malformed(f"Policy statement must contain {one}s, or {other}s, and not both")
    for action in texts(statement.get("Action", statement.get("NotAction"))):
        if not re.fullmatch(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", action):
            raise Malformed(f"Actions/Conditions must be prefaced by a vendor: {action}")
    if kind == "session":
        for resource in texts(statement.get("Resource", statement.get("NotResource"))):
            if resource != "*" and (not resource.startswith("arn:") or resource.count(":") < 5):
                raise Malformed(f'Resource {resource} must be in ARN format or "*"')
            pattern(resource, None)
    elif not isinstance(statement.get("Principal"), dict):
        raise Malformed("Missing required field Principal")
    check_conditions(statement.get("Condition", {}))


def check_conditions(conditions: object) -> None:
    """The grammar of a statement's conditions."""
    if not isinstance(conditions, dict):
        raise Malformed("Syntax errors in policy: Condition")
    for operator, keys in conditions.items():
        if comparison(operator) is None or not isinstance(keys, dict) or not keys:
            raise Malformed(f"Invalid Condition type : {operator}")
        for key, values in keys.items():
            if not re.fullmatch(r"[A-Za-z0-9.:/_@=+\-]+:[^\s].*", key):
                raise Malformed(f"Condition key {key} is invalid")
            for value in condition_values(values):
                pattern(value, None)
                if "Date" in operator and instant(value) is None:
                    raise Malformed(f"{value} is no date")


def decide(statements: list[dict[str, Any]], asked: Asked) -> str:
    """`Deny`, `Allow`, or `None` where nothing speaks of it."""
    effects = {statement["Effect"] for statement in statements if speaks_of(statement, asked)}
    return "Deny" if "Deny" in effects else "Allow" if "Allow" in effects else "None"


def speaks_of(statement: dict[str, Any], asked: Asked) -> bool:
    """Whether a statement is about this request."""
    for member, wanted in (("Action", True), ("NotAction", False)):
        if member in statement:
            fits = any(like(asked.action.lower(), action.lower(), {}) for action in texts(statement[member]))
            if fits is not wanted:
                return False
    for member, wanted in (("Resource", True), ("NotResource", False)):
        if member in statement:
            fits = any(like(asked.resource, resource, asked.context) for resource in texts(statement[member]))
            if fits is not wanted:
                return False
    return holds(statement.get("Condition", {}), asked.context)


def holds(conditions: dict[str, dict[str, Any]], context: Context) -> bool:
    """Whether all conditions hold."""
    return all(
        compare(operator, context.get(key.lower()), condition_values(values), context)
        for operator, keys in conditions.items()
        for key, values in keys.items()
    )


def compare(operator: str, actual: str | list[str] | None, expected: list[str], context: Context) -> bool:
    """One comparison of what the request has with what the policy names."""
    if operator == "Null":
        return (actual is None) == (expected[0].lower() == "true")
    found = comparison(operator)
    if found is None:
        raise Malformed(f"Invalid Condition type : {operator}")
    quantifier, (test, negated), if_exists = found
    values = [actual] if isinstance(actual, str) else actual

    def fits(value: str) -> bool:
        hit = any(test(value, one, context) for one in expected)
        return not hit if negated else hit

    if values is None:
        return if_exists or quantifier == "ForAllValues" or (quantifier is None and negated)
    if quantifier == "ForAllValues":
        return all(fits(value) for value in values)
    if quantifier == "ForAnyValue":
        return any(fits(value) for value in values)
    # A plain comparison of a key with several values holds as soon as one fits; negated, where none does.
    return all(fits(value) for value in values) if negated else any(fits(value) for value in values)


Test = Callable[[str, str, Context], bool]


def comparison(operator: str) -> tuple[str | None, tuple[Test, bool], bool] | None:
    """An operator's quantifier, its test, and whether it holds where the key is missing."""
    quantifier, _, name = operator.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        return None
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    if name == "Null" and not quantifier and not if_exists:
        return None, (is_equal, False), False
    found = OPERATORS.get(name)
    return (quantifier or None, found, if_exists) if found else None


def pattern(text: str, context: Context | None, *, wildcards: bool = True) -> re.Pattern[str] | None:
    """A value of a policy as a regular expression; `None` where the request lacks a value that it names.

    Without a request only the grammar matters.
    """
    parts: list[str] = []
    rest = text
    while rest:
        variable = re.match(r"\$\{([^}]*)\}", rest)
        if variable:
            name, rest = variable[1], rest[variable.end() :]
            if name in ("*", "?", "$"):
                parts.append(re.escape(name))
                continue
            if not re.fullmatch(r"[A-Za-z0-9]+:[A-Za-z0-9_/.:=+@-]+", name):
                raise Malformed(f"Invalid policy variable ${{{name}}}")
            value = "" if context is None else context.get(name.lower())
            if not isinstance(value, str):
                return None
            parts.append(re.escape(value))
            continue
        if rest.startswith("${"):
            raise Malformed("A policy variable does not end")
        character, rest = rest[0], rest[1:]
        wild = {"*": ".*", "?": "."}.get(character) if wildcards else None
        parts.append(wild or re.escape(character))
    return re.compile("".join(parts), re.DOTALL)


def like(actual: str, expected: str, context: Context) -> bool:
    """Whether a value fits, wildcards counted."""
    compiled = pattern(expected, context)
    return compiled is not None and compiled.fullmatch(actual) is not None


def is_equal(actual: str, expected: str, context: Context) -> bool:
    """Whether a value is equal, variables replaced."""
    compiled = pattern(expected, context, wildcards=False)
    return compiled is not None and compiled.fullmatch(actual) is not None


def ordered(read: Callable[[str], Any], test: Callable[[Any, Any], bool]) -> Test:
    """A comparison of numbers or instants; what is neither compares with nothing."""

    def compared(actual: str, expected: str, _context: Context) -> bool:
        left, right = read(actual), read(expected)
        return left is not None and right is not None and test(left, right)

    return compared


def instant(text: str) -> datetime | None:
    """An instant as ISO 8601 has it, or seconds since 1970."""
    try:
        found = datetime.fromtimestamp(int(text), UTC) if text.isdigit() else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def number(text: str) -> float | None:
    """A number."""
    try:
        return float(text)
    except ValueError:
        return None


def within(actual: str, expected: str, _context: Context) -> bool:
    """Whether an address is of a network."""
    try:
        return ipaddress.ip_address(actual) in ipaddress.ip_network(expected, strict=False)
    except ValueError:
        return False


def texts(value: object) -> list[str]:
    """A text, or several."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise Malformed("Syntax errors in policy: a text or a list of texts is due")
    return found


def condition_values(value: object) -> list[str]:
    """The values of a condition as texts."""
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(one, str | bool | int | float) for one in found):
        raise Malformed("Syntax errors in policy: values of a condition")
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in found]


def fold(test: Test) -> Test:
    """A test that does not tell case apart."""
    return lambda actual, expected, context: test(actual.lower(), expected.lower(), context)


EQUAL, LESS, MOST = (lambda a, b: a == b), (lambda a, b: a < b), (lambda a, b: a <= b)
MORE, LEAST = (lambda a, b: a > b), (lambda a, b: a >= b)
OPERATORS: dict[str, tuple[Test, bool]] = {
    "StringEquals": (is_equal, False),
    "StringNotEquals": (is_equal, True),
    "StringEqualsIgnoreCase": (fold(is_equal), False),
    "StringNotEqualsIgnoreCase": (fold(is_equal), True),
    "StringLike": (like, False),
    "StringNotLike": (like, True),
    "ArnEquals": (like, False),
    "ArnNotEquals": (like, True),
    "ArnLike": (like, False),
    "ArnNotLike": (like, True),
    "Bool": (fold(is_equal), False),
    "IpAddress": (within, False),
    "NotIpAddress": (within, True),
}
for kind, read in (("Numeric", number), ("Date", instant)):
    OPERATORS |= {
        f"{kind}Equals": (ordered(read, EQUAL), False),
        f"{kind}NotEquals": (ordered(read, EQUAL), True),
        f"{kind}LessThan": (ordered(read, LESS), False),
        f"{kind}LessThanEquals": (ordered(read, MOST), False),
        f"{kind}GreaterThan": (ordered(read, MORE), False),
        f"{kind}GreaterThanEquals": (ordered(read, LEAST), False),
    }
