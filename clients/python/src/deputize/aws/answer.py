"""Credentials as a broker or a guard answers with them, read strictly enough to be signed with.

Nothing that was read is in an error, nor in the error behind it: parsers' own errors hold the text that they parsed.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone

from deputize.call.strict_json import JsonObject, JsonRefused, parse_object
from deputize.errors import ProtocolError

from .credentials import AwsCredentials


def read_process(body: bytes) -> AwsCredentials:
    """Read what a broker answers: the shape of `credential_process`, with the decision's id.

    Raises:
        ProtocolError: where it is none.
    """
    members = _members(body)
    if members.get("Version") != 1:
        raise ProtocolError("the answer has no AWS credentials")
    return _read(members, "SessionToken")


def read_container(body: bytes) -> AwsCredentials:
    """Read what a guard answers: the shape of a container's credentials.

    Raises:
        ProtocolError: where it is none.
    """
    return _read(_members(body), "Token")


def read_complaint(body: bytes) -> tuple[str, str]:
    """Read what a guard answers in their place: a code, and a sentence. What a server says ends in logs."""
    code, message = (_members(body).get(name) for name in ("code", "message"))
    plain = [_CONTROL.sub("", each)[:512] if isinstance(each, str) else "" for each in (code, message)]
    return plain[0], plain[1]


def _read(members: JsonObject, token_name: str) -> AwsCredentials:
    key_id, secret, token = (members.get(name) for name in ("AccessKeyId", "SecretAccessKey", token_name))
    expires_at = _instant(members.get("Expiration"))
    if not (_is_part(key_id, 128) and _is_part(secret, 256) and _is_part(token, 16_384)) or expires_at is None:
        raise ProtocolError("the AWS credentials in the answer are malformed")
    account_id, decision_id = members.get("AccountId"), members.get("decision_id")
    return AwsCredentials(
        access_key_id=str(key_id),
        secret_access_key=str(secret),
        session_token=str(token),
        expires_at=expires_at,
        account_id=account_id if isinstance(account_id, str) and _ACCOUNT.fullmatch(account_id) else None,
        decision_id=decision_id if isinstance(decision_id, str) and _is_part(decision_id, 128) else None,
    )


def _members(body: bytes) -> JsonObject:
    try:
        return parse_object(body)
    except JsonRefused:
        return {}


def _is_part(value: object, longest: int) -> bool:
    """They go into header fields: printable, and no space."""
    return isinstance(value, str) and len(value) <= longest and _PRINTABLE.fullmatch(value) is not None


def _instant(value: object) -> datetime | None:
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


_PRINTABLE = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ACCOUNT = re.compile(r"[0-9]{12}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
