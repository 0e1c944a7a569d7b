"""Requests to EC2, S3 and DynamoDB, before they are passed on to the emulator.

What each asks for, and whether the policy of its session allows it at the time that the test says it is.

Who enforces what: ministack verifies signature, session token and expiry, and evaluates the role's and the session's
policies too, at the machine's time. It looks at the first instance alone where a request names several, takes `${*}`
for a wildcard, and knows no `aws:SourceIdentity`. This gate evaluates the session policy a second time, by itself, for
all resources of a request and at a time that can be moved; what it cannot read it denies. Both must allow.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from policy import Asked, decide

CREDENTIAL = re.compile(r"Credential=([^/,]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
EC2_ACTIONS = {"RebootInstances", "StartInstances", "StopInstances", "TerminateInstances"}
S3_ACTIONS = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
# What only says how the answer is to be written or how the request was signed, and names no other resource.
S3_HARMLESS = {"x-id", "encoding-type", "fetch-owner", "continuation-token", "start-after", "list-type"}
DYNAMODB_ACTIONS = {"GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"}


@dataclass(frozen=True)
class Known:
    """A session that was made here."""

    role_arn: str
    name: str
    statements: list[dict[str, Any]]
    tags: dict[str, str]
    source_identity: str | None
    expires_at: datetime


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def credential(self) -> tuple[str, str, str]:
        """Access key, region and service of its signature; empty where there is none."""
        found = CREDENTIAL.search(self.headers.get("authorization", ""))
        return (found[1], found[3], found[4]) if found else ("", "", "")


class Gate:
    """The sessions of an account, and what each may do."""

    def __init__(self, account: str, partition_keys: dict[str, str]) -> None:
        self.account, self.partition_keys = account, partition_keys
        self.sessions: dict[str, Known] = {}
        self.offset = timedelta()

    def now(self) -> datetime:
        """The time of the evaluator."""
        return datetime.now(UTC) + self.offset

    def judge(self, request: Request) -> tuple[str, list[str], str]:
        """What a request asks for, of what, and `Allow` or why not."""
        access_key, region, service = request.credential
        session = self.sessions.get(access_key)
        if session is None:
            return "unknown", [], "UnknownKey"
        if self.now() >= session.expires_at:
            return "unknown", [], "Expired"
        if service == "sts":
            # AWS allows it to everybody who has credentials at all.
            called = parse_qs(request.body.decode()).get("Action", [""])[0]
            return f"sts:{called}", ["*"], "Allow" if called == "GetCallerIdentity" else "Deny"
        read = {"ec2": self._ec2, "s3": self._s3, "dynamodb": self._dynamodb}.get(service)
        found = read(request, region) if read else None
        if found is None:
            return f"{service}:?", [], "Unreadable"
        action, resources, context = found
        context |= self._about(session, region)
        verdicts = {decide(session.statements, Asked(action, resource, context)) for resource in resources}
        return action, resources, "Allow" if verdicts == {"Allow"} else "Deny"

    def _about(self, session: Known, region: str) -> dict[str, str | list[str]]:
        role = session.role_arn.rpartition("/")[2]
        assumed = f"arn:aws:sts::{self.account}:assumed-role/{role}/{session.name}"
        now = self.now()
        return {
            "aws:currenttime": now.isoformat(),
            "aws:epochtime": str(int(now.timestamp())),
            "aws:principalarn": session.role_arn,
            "aws:principalaccount": self.account,
            "aws:userid": assumed,
            "aws:requestedregion": region,
            "aws:resourceaccount": self.account,
            "aws:securetransport": "false",
            "aws:sourceip": "127.0.0.1",
            **({"aws:sourceidentity": session.source_identity} if session.source_identity else {}),
            **{f"aws:principaltag/{key.lower()}": value for key, value in session.tags.items()},
        }

    def _ec2(self, request: Request, region: str) -> "Read | None":
        form = parse_qs(request.body.decode(), keep_blank_values=True)
        action = form.get("Action", [""])[0]
        if action.startswith("Describe"):
            return f"ec2:{action}", ["*"], {}
        instances = [values[0] for name, values in form.items() if re.fullmatch(r"InstanceId\.\d+", name)]
        if action not in EC2_ACTIONS or not instances:
            return None
        arns = [f"arn:aws:ec2:{region}:{self.account}:instance/{instance}" for instance in instances]
        return f"ec2:{action}", arns, {"ec2:region": region}

    def _s3(self, request: Request, _region: str) -> "Read | None":
        parts = urlsplit(request.target)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        names = query.keys() - S3_HARMLESS
        if not bucket or "x-amz-copy-source" in request.headers:
            return None
        if key and not names and request.method in S3_ACTIONS:
            return f"s3:{S3_ACTIONS[request.method]}", [f"arn:aws:s3:::{bucket}/{key}"], {}
        if not key and request.method == "GET" and names <= {"prefix", "delimiter", "max-keys"}:
            context = {f"s3:{name}": query[name][0] for name in names}
            return "s3:ListBucket", [f"arn:aws:s3:::{bucket}"], context
        return None

    def _dynamodb(self, request: Request, region: str) -> "Read | None":
        action = request.headers.get("x-amz-target", "").partition(".")[2]
        asked = json.loads(request.body)
        table = str(asked.get("TableName", "")).rpartition("/")[2]
        if action not in DYNAMODB_ACTIONS or table not in self.partition_keys:
            return None
        arn = f"arn:aws:dynamodb:{region}:{self.account}:table/{table}"
        arn += f"/index/{asked['IndexName']}" if "IndexName" in asked else ""
        context: dict[str, str | list[str]] = {"dynamodb:select": asked["Select"]} if "Select" in asked else {}
        if action != "Scan":
            leading = leading_key(asked, action, self.partition_keys[table])
            if leading is None:
                return None
            context["dynamodb:leadingkeys"] = [leading]
        return f"dynamodb:{action}", [arn], context


Read = tuple[str, list[str], dict[str, str | list[str]]]


def leading_key(asked: dict[str, Any], action: str, partition: str) -> str | None:
    """The value of the partition key that a request to DynamoDB names."""
    if action != "Query":
        found = asked.get("Item" if action == "PutItem" else "Key", {}).get(partition)
        return text_of(found)
    condition = re.match(r"\s*\(?\s*([\w.#-]+)\s*=\s*(:\w+)", str(asked.get("KeyConditionExpression", "")))
    if condition is None:
        return None
    name = asked.get("ExpressionAttributeNames", {}).get(condition[1], condition[1])
    return text_of(asked.get("ExpressionAttributeValues", {}).get(condition[2])) if name == partition else None


def text_of(value: object) -> str | None:
    """The text or number of an attribute."""
    found = value if isinstance(value, dict) else {}
    return str(found["S"]) if "S" in found else str(found["N"]) if "N" in found else None


def refusal_of(service: str, verdict: str, action: str) -> tuple[int, str, bytes]:
    """Status, media type and body with which the service says no."""
    message = f"not authorized to perform: {action} ({verdict})"
    if service == "dynamodb":
        kind = {"Expired": "ExpiredTokenException", "UnknownKey": "UnrecognizedClientException"}.get(verdict)
        kind = kind or "AccessDeniedException"
        body = json.dumps({"__type": f"com.amazon.coral.service#{kind}", "Message": message})
        return 400, "application/x-amz-json-1.0", body.encode()
    codes = {
        "s3": {"Expired": "ExpiredToken", "UnknownKey": "InvalidAccessKeyId", "": "AccessDenied"},
        "ec2": {"Expired": "RequestExpired", "UnknownKey": "AuthFailure", "": "UnauthorizedOperation"},
    }.get(service, {"Expired": "ExpiredToken", "UnknownKey": "InvalidClientTokenId", "": "AccessDenied"})
    error = f"<Code>{codes.get(verdict, codes[''])}</Code><Message>{message}</Message>"
    if service == "s3":
        return 403, "application/xml", f"<Error>{error}</Error>".encode()
    if service == "ec2":
        return (
            403,
            "text/xml",
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>".encode(),
        )
    return 403, "text/xml", f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>".encode()
