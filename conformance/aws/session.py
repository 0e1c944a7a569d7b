"""`AssumeRoleWithWebIdentity`: from a request to the session that it asks for, or a refusal.

Where the facts are from:

* Lengths and alphabets of parameters and tags, 900 to 43,200 seconds, 2,048 characters of policy, that tags and source
  identity come in the token and not as parameters: AWS's service description of STS.
* The claim `https://aws.amazon.com/tags` (`principal_tags`, each value a list; `transitive_tag_keys`), at most 50 tags,
  keys that differ by more than case, `sts:TagSession` in the role's trust policy: IAM's user guide on session tags.
* The claim `https://aws.amazon.com/source_identity`, `sts:SetSourceIdentity`: IAM's user guide on source identity. That
  it must not begin with `aws:`: the service description.
* The claim `https://aws.amazon.com/roles`, a text or a list of which one must be the role's ARN exactly, checked before
  the trust policy, and the condition key `sts:RoleAuthorizedByIdp`: AWS documents the key; what STS does with the claim
  was published by people who tried it.
* How STS packs policy and tags is not public. Here they are compressed, and `packed_bytes` is the limit: enough to see
  what a caller makes of the refusal, and no prediction of AWS's.

Stricter than STS: a parameter that does not belong to this operation is refused, not overlooked; so is a token in a
URL.
"""

import json
import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Any

from identity import Providers, WebIdentity, untrue
from policy import Asked, Malformed, parse, speaks_of, texts
from refusal import Refusal, invalid

TAGS, SOURCE_IDENTITY, ROLES = (f"https://aws.amazon.com/{claim}" for claim in ("tags", "source_identity", "roles"))
NAME = re.compile(r"[\w+=,.@-]*", re.ASCII)
ROLE_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::(\d{12}):role/([\w+=,.@/-]+)", re.ASCII)
PARAMETERS = {
    "Action",
    "Version",
    "RoleArn",
    "RoleSessionName",
    "WebIdentityToken",
    "Policy",
    "DurationSeconds",
}


@dataclass(frozen=True)
class Role:
    """A role of the account."""

    arn: str
    trust: str
    max_session_seconds: int


@dataclass(frozen=True)
class Session:
    """What a role session is asked to be."""

    role: Role
    name: str
    duration_seconds: int
    policy: str | None
    tags: dict[str, str]
    transitive: list[str]
    source_identity: str | None
    identity: WebIdentity
    packed_percent: int


class Account:
    """An AWS account: its roles, and its OIDC providers."""

    def __init__(self, number: str, providers: Providers, packed_bytes: int) -> None:
        self.number, self.providers, self.packed_bytes = number, providers, packed_bytes
        self.roles: dict[str, Role] = {}

    def session(self, form: dict[str, str]) -> Session:
        """Checks everything, in the order in which STS answers: parameters, policy, token, claims, trust."""
        arn, name, duration_seconds = parameters(form)
        policy = session_policy(form.get("Policy"))
        identity = self.providers.verify(form["WebIdentityToken"])
        tags, transitive = session_tags(identity.claims)
        source = source_identity(identity.claims)
        pinned = authorized_roles(identity.claims, arn)
        role = self.roles.get(arn)
        if role is None:
            raise not_authorized("AssumeRoleWithWebIdentity")
        if duration_seconds > role.max_session_seconds:
            raise Refusal(
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            )
        context = {
            f"{identity.provider.name}:aud": identity.audience,
            f"{identity.provider.name}:sub": identity.subject,
            "sts:rolesessionname": name,
            "sts:roleauthorizedbyidp": str(pinned).lower(),
            **{f"aws:requesttag/{key}": value for key, value in tags.items()},
            **({"aws:tagkeys": list(tags), "sts:transitivetagkeys": transitive} if tags else {}),
            **({"sts:sourceidentity": source} if source else {}),
        }
        context = {key.lower(): value for key, value in context.items()}
        needed = ["AssumeRoleWithWebIdentity"] + ["TagSession"] * bool(tags) + ["SetSourceIdentity"] * bool(source)
        for action in needed:
            if not trusts(role, f"sts:{action}", self._federated(identity), context):
                raise not_authorized(action)
        packed = packed_percent(policy, tags, self.packed_bytes)
        return Session(role, name, duration_seconds, policy, tags, transitive, source, identity, packed)

    def _federated(self, identity: WebIdentity) -> str:
        return f"arn:aws:iam::{self.number}:oidc-provider/{identity.provider.name}"


def parameters(form: dict[str, str]) -> tuple[str, str, int]:
    """Role, session name and duration; the token and the policy are there too, and no stranger."""
    for unknown in sorted(form.keys() - PARAMETERS):
        raise invalid(unknown, form[unknown], "No such parameter of AssumeRoleWithWebIdentity")
    if form.get("Version") != "2011-06-15":
        raise Refusal("InvalidAction", "Could not find operation for this version")
    for required in ("RoleArn", "RoleSessionName", "WebIdentityToken"):
        if not form.get(required):
            raise invalid(required, "", "Member must not be null")
    arn, name = form["RoleArn"], form["RoleSessionName"]
    if not 20 <= len(arn) <= 2048 or not ROLE_ARN.fullmatch(arn):
        raise invalid("roleArn", arn, "Member must be the ARN of a role")
    if not 2 <= len(name) <= 64 or not NAME.fullmatch(name):
        raise invalid("roleSessionName", name, r"Member must have length 2 to 64 and satisfy [\w+=,.@-]*")
    duration = form.get("DurationSeconds", "3600")
    if not duration.isascii() or not duration.isdigit() or not 900 <= int(duration) <= 43_200:
        raise invalid("durationSeconds", duration, "Member must have value between 900 and 43200")
    return arn, name, int(duration)


def session_policy(text: str | None) -> str | None:
    """The session policy: its length, its characters, its grammar."""
    if text is None:
        return None
    if not 1 <= len(text) <= 2048:
        raise invalid("policy", text, "Member must have length between 1 and 2048")
    if not re.fullmatch("[\t\n\r\u0020-\u00ff]+", text):
        raise invalid("policy", text, r"Member must satisfy [\u0009\u000A\u000D\u0020-\u00FF]+")
    try:
        parse(text)
    except Malformed as error:
        raise Refusal("MalformedPolicyDocument", str(error)) from error
    return text


def session_tags(claims: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The session tags, and the keys of those that are transitive."""
    if TAGS not in claims:
        return {}, []
    claim = claims[TAGS]
    if not isinstance(claim, dict) or not claim.keys() <= {"principal_tags", "transitive_tag_keys"}:
        raise untrue("The tags claim must have principal_tags and transitive_tag_keys")
    principal, transitive = claim.get("principal_tags", {}), claim.get("transitive_tag_keys", [])
    if not isinstance(principal, dict) or not is_texts(transitive):
        raise untrue("The tags claim must hold an object and a list of texts")
    if len(principal) > 50 or len(transitive) > 50:
        raise untrue("At most 50 session tags can be passed")
    if len({key.lower() for key in principal}) != len(principal):
        raise untrue("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    tags: dict[str, str] = {}
    for key, values in principal.items():
        if not is_texts(values) or len(values) != 1:
            raise untrue(f"The tag {key} must be a list of exactly one text")
        if not 1 <= len(key) <= 128 or not is_of_tags(key) or key.lower().startswith("aws:"):
            raise untrue(f"The tag key {key} is not one that STS takes")
        if len(values[0]) > 256 or not is_of_tags(values[0]):
            raise untrue(f"The value of the tag {key} is not one that STS takes")
        tags[key] = values[0]
    if not {key.lower() for key in transitive} <= {key.lower() for key in tags}:
        raise untrue("A transitive tag key is not that of a session tag")
    return tags, transitive


def source_identity(claims: dict[str, Any]) -> str | None:
    """Who is behind the session."""
    if SOURCE_IDENTITY not in claims:
        return None
    source = claims[SOURCE_IDENTITY]
    if not isinstance(source, str) or not 2 <= len(source) <= 64 or not NAME.fullmatch(source):
        raise untrue("The source identity is not one that STS takes")
    if source.lower().startswith("aws:"):
        raise untrue("A source identity must not begin with aws:")
    return source


def authorized_roles(claims: dict[str, Any], arn: str) -> bool:
    """Whether the provider named this role among those that the token is for; naming others refuses it."""
    if ROLES not in claims:
        return False
    roles = [claims[ROLES]] if isinstance(claims[ROLES], str) else claims[ROLES]
    if not is_texts(roles) or arn not in roles:
        raise untrue("The target role ARN is not present in the roles claim of the identity token")
    return True


def trusts(role: Role, action: str, federated: str, context: dict[str, str | list[str]]) -> bool:
    """Whether the role's trust policy lets this provider do this."""
    effects = set()
    for statement in parse(role.trust, kind="trust"):
        principals = statement["Principal"].get("Federated")
        if principals is None or federated not in texts(principals):
            continue
        if speaks_of(statement, Asked(action, role.arn, context)):
            effects.add(statement["Effect"])
    return effects == {"Allow"}


def packed_percent(policy: str | None, tags: dict[str, str], limit: int) -> int:
    """How much of the packed size's limit is used."""
    packed = zlib.compress(json.dumps([policy, tags], separators=(",", ":")).encode(), 9)
    percent = -(-100 * len(packed) // limit)
    if percent > 100:
        raise Refusal(
            "PackedPolicyTooLarge", f"Packed policy consumes {percent}% of allotted space, please use smaller"
        )
    return percent


def not_authorized(action: str) -> Refusal:
    """The role does not want this; or there is none, which is not told apart."""
    return Refusal("AccessDenied", f"Not authorized to perform sts:{action}")


def is_texts(value: object) -> bool:
    """A list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def is_of_tags(text: str) -> bool:
    """Letters, numbers, separators of every script, and a few signs."""
    return all(unicodedata.category(one)[0] in "LNZ" or one in "_.:/=+-@" for one in text)
