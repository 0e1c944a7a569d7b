"""A second opinion: strict JSON, RFC 8785, the digests, constraints, entries of resources, ECDSA (RFC 6979) and Ed25519
(RFC 8032), done once more with the standard library alone and nothing of the project's own code. Checked against the
values that the RFCs publish. For vectors only: nothing here is constant-time.
"""

import base64
import hashlib
import hmac
import json
import math
import re
import struct

MAX_SAFE = 2**53 - 1
MAX_DEPTH = 32


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- strict JSON ---------------------------------------------------------------------------------------------


class Refused(Exception):
    """Its text is the reason: syntax, duplicate, number, depth, not_object."""


def parse_strict(text: bytes):
    if depth_of(text) > 900:  # beyond what the recursive parser of the standard library holds
        raise Refused("depth")
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=unique_members,
            parse_int=lambda digits: bounded(int(digits), digits),
            parse_float=lambda digits: bounded(float(digits), digits),
            parse_constant=lambda _: refuse("syntax"),
        )
    except ValueError:
        raise Refused("syntax") from None
    check_tree(value, MAX_DEPTH)
    if not isinstance(value, dict):
        raise Refused("not_object")
    return value


def refuse(reason):
    raise Refused(reason)


def bounded(number, digits):
    if not math.isfinite(number) or abs(number) > MAX_SAFE:
        raise Refused("number")
    # "-0" is the negative zero of IEEE 754, whatever its notation.
    return -0.0 if number == 0 and digits.startswith("-") else number


def unique_members(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Refused("duplicate")
    return members


def check_tree(value, levels):
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Refused("syntax") from None
    elif isinstance(value, (dict, list)):
        if levels == 0:
            raise Refused("depth")
        for item in value.items() if isinstance(value, dict) else enumerate(value):
            check_tree(item[0], levels)
            check_tree(item[1], levels - 1)


def depth_of(text: bytes) -> int:
    depth = deepest = 0
    for byte in text:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


# --- RFC 8785 ------------------------------------------------------------------------------------------------

ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def canonical(value) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
    if isinstance(value, (int, float)):
        return es6_number(float(value))
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    by_utf16 = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
    return "{" + ",".join(f"{canonical(name)}:{canonical(member)}" for name, member in by_utf16) + "}"


def es6_number(number: float) -> str:
    """ECMAScript's Number::toString, on the shortest digits that `repr` finds."""
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + power


# RFC 8785 §3.2.2 and §3.2.3: the sample and its published form.
RFC_8785_SAMPLE = r"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
RFC_8785_FORM = (
    r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
    r'"string":"€$\u000f\nA' + r"'" + r'B\"\\\\\"/"}'
)
assert canonical(json.loads(RFC_8785_SAMPLE)) == RFC_8785_FORM
# RFC 8785 appendix B.
for bits, form in {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x8000000000000001: "-5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555553: "333333333.3333332",
    0x41B3DE4355555554: "333333333.33333325",
    0x41B3DE4355555555: "333333333.3333333",
    0xBECBF647612F3696: "-0.0000033333333333333333",
    0x43143FF3C1CB0959: "1424953923781206.2",
}.items():
    assert es6_number(struct.unpack(">d", bits.to_bytes(8, "big"))[0]) == form, form


# --- digests -------------------------------------------------------------------------------------------------


def digest(prefix: str, value) -> str:
    return b64url(hashlib.sha256(prefix.encode() + b"\0" + canonical(value).encode()).digest())


def call_form(call):
    form = {"a": {}, "m": call["method"], "n": call["name"]}
    for letter, part in {"a": "arguments", "i": "input_responses", "s": "request_state"}.items():
        if part in call:
            # Parsed as a member, so that a part which is no object can be told from one that is malformed.
            form[letter] = parse_strict(b'{"v":' + call[part].encode() + b"}")["v"]
    return form


PINNED = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"]


def tool_form(text):
    definition = parse_strict(text.encode())
    return {name: definition[name] for name in PINNED if name in definition}


# --- constraints ---------------------------------------------------------------------------------------------


def is_well_formed(constraints) -> bool:
    pointers = list(constraints)
    if not 1 <= len(pointers) <= 64:
        return False
    for pointer, constraint in constraints.items():
        tokens = pointer.split("~")[1:]
        if not pointer.startswith("/") or any(token[:1] not in ("0", "1") for token in tokens):
            return False
        if any(other.startswith(pointer + "/") for other in pointers):
            return False
        kinds = [
            "enum" in constraint,
            "minimum" in constraint or "maximum" in constraint,
            "prefix" in constraint and constraint["prefix"] != [],
        ]
        if sum(kinds) != 1 or set(constraint) - {"enum", "minimum", "maximum", "prefix", "optional"}:
            return False
        if "enum" in constraint and not (isinstance(constraint["enum"], list) and 1 <= len(constraint["enum"]) <= 64):
            return False
        if not isinstance(constraint.get("optional", False), bool):
            return False
        if not all(is_number(constraint[bound]) for bound in ("minimum", "maximum") if bound in constraint):
            return False
        if "minimum" in constraint and "maximum" in constraint and constraint["minimum"] > constraint["maximum"]:
            return False
        if not all(is_plain(prefix) for prefix in prefixes(constraint)):
            return False
    return True


def prefixes(constraint):
    prefix = constraint.get("prefix", [])
    return [prefix] if isinstance(prefix, str) else prefix


def is_plain(path) -> bool:
    controls = any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in path)
    return path != "" and ".." not in path and "%" not in path and "\\" not in path and not controls


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_admitted(constraint, value) -> bool:
    if "enum" in constraint and canonical(value) not in map(canonical, constraint["enum"]):
        return False
    for bound, holds in (("minimum", lambda b: value >= b), ("maximum", lambda b: value <= b)):
        if bound in constraint and not (is_number(value) and holds(constraint[bound])):
            return False
    for prefix in prefixes(constraint):
        if not isinstance(value, str) or not is_plain(value):
            return False
        if not (value == prefix or value.startswith(prefix if prefix.endswith("/") else prefix + "/")):
            return False
    return True


def admits(constraints, arguments) -> bool:
    met = set()

    def walk(pointer, value) -> bool:
        if pointer in constraints:
            met.add(pointer)
            return is_admitted(constraints[pointer], value)
        if isinstance(value, dict) and (value or pointer == ""):
            return all(
                walk(f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}", member)
                for name, member in value.items()
            )
        if isinstance(value, list) and value:
            return all(walk(f"{pointer}/{index}", item) for index, item in enumerate(value))
        return False

    return walk("", arguments) and all(p in met or c.get("optional", False) for p, c in constraints.items())


# --- entries of resources -------------------------------------------------------------------------------------

# RFC 3986, sections 2 and 3.1: an absolute URI. Below a prefix: segments that are not empty and neither climb nor hide.
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
SEGMENT = r"(?!\.(?:/|;|\Z))(?:(?!\.\.)[^/%\\?#])+"
BELOW = re.compile(rf"{SEGMENT}(?:/{SEGMENT})*")


# A host in lower case without user info, and as escapes only those that no plain character below a prefix stands for.
ESCAPE = r"%(?:[01][0-9A-Fa-f]|2[0235]|3[CcEeFf]|5[Ee]|60|7[BbCcDdFf]|[89A-Fa-f][0-9A-Fa-f])"
ENTRY = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*):(?://(?P<host>[^/?#@A-Z]*)(?=[/?#]|\Z)|(?!//))(?P<rest>(?:[^%]|ESCAPE)*)".replace("ESCAPE", ESCAPE),
    re.DOTALL,
)


def is_entry(text):
    """Whether a registry may have this as an entry."""
    if len(text) > 1024 or not ABSOLUTE.fullmatch(text):
        return False
    found = ENTRY.fullmatch(text)
    if found is None or {".", ".."} & set(re.split("[/?#]", text)):
        return False
    if not text.endswith("/*"):
        return True
    hidden = ".." in text or re.search("[%?#*]", text[:-1])
    return not hidden and found["host"] is not None and (found["host"] + found["rest"])[:-1].strip("/") != ""


def deciding_entry(entries, uri):
    """The entry that decides about a URI and names it, or None."""
    if len(uri) > 1024 or not ABSOLUTE.fullmatch(uri) or uri.endswith("/*"):
        return None
    if uri in entries:
        return uri
    prefixes = [entry for entry in entries if entry.endswith("/*") and f"{uri}/".startswith(entry[:-1])]
    longest = max(prefixes, key=len, default=None)
    if longest is None or f"{uri}/" in entries:
        return None
    return longest if BELOW.fullmatch(uri[len(longest) - 1 :]) else None


# --- signatures ----------------------------------------------------------------------------------------------

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def p256_add(left, right):
    if left is None or right is None:
        return left or right
    if left[0] == right[0]:
        if (left[1] + right[1]) % P == 0:
            return None
        slope = (3 * left[0] * left[0] - 3) * pow(2 * left[1], -1, P)
    else:
        slope = (right[1] - left[1]) * pow(right[0] - left[0], -1, P)
    x = (slope * slope - left[0] - right[0]) % P
    return x, (slope * (left[0] - x) - left[1]) % P


def p256_times(scalar, point=G):
    total = None
    while scalar:
        if scalar & 1:
            total = p256_add(total, point)
        point = p256_add(point, point)
        scalar >>= 1
    return total


def es256(private: int, message: bytes) -> bytes:
    """ECDSA with the deterministic k of RFC 6979 §3.2."""
    hashed = hashlib.sha256(message).digest()
    seed = private.to_bytes(32, "big") + (int.from_bytes(hashed, "big") % N).to_bytes(32, "big")
    key, value = b"\0" * 32, b"\1" * 32
    for mark in (b"\0", b"\1"):
        key = hmac.digest(key, value + mark + seed, "sha256")
        value = hmac.digest(key, value, "sha256")
    while True:
        value = hmac.digest(key, value, "sha256")
        k = int.from_bytes(value, "big")
        if 0 < k < N:
            r = p256_times(k)[0] % N
            s = pow(k, -1, N) * (int.from_bytes(hashed, "big") + r * private) % N
            if r and s:
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        key = hmac.digest(key, value + b"\0", "sha256")
        value = hmac.digest(key, value, "sha256")


# RFC 6979 appendix A.2.5.
A25 = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
assert es256(A25, b"sample").hex().upper() == (
    "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
)

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
BY = 4 * pow(5, -1, Q) % Q


def ed_x(y):
    square = (y * y - 1) * pow(D * y * y + 1, -1, Q)
    x = pow(square, (Q + 3) // 8, Q)
    if (x * x - square) % Q:
        x = x * pow(2, (Q - 1) // 4, Q) % Q
    return Q - x if x & 1 else x


def ed_times(scalar, point=None):
    point = point or (ed_x(BY), BY)
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = ed_add(total, point)
        point = ed_add(point, point)
        scalar >>= 1
    return total


def ed_add(left, right):
    (x1, y1), (x2, y2) = left, right
    cross = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + cross, -1, Q) % Q,
        (y1 * y2 + x1 * x2) * pow(1 - cross, -1, Q) % Q,
    )


def ed_encode(point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def ed_expand(seed: bytes):
    expanded = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(expanded[:32], "little") & ~7 & (1 << 255) - 1 | 1 << 254
    return scalar, expanded[32:]


def eddsa(seed: bytes, message: bytes) -> bytes:
    scalar, prefix = ed_expand(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    big_r = ed_encode(ed_times(r))
    k = int.from_bytes(hashlib.sha512(big_r + ed_encode(ed_times(scalar)) + message).digest(), "little")
    return big_r + ((r + k * scalar) % L).to_bytes(32, "little")


# RFC 8032 §7.1, test 1.
SEED_1 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
assert ed_encode(ed_times(ed_expand(SEED_1)[0])).hex() == (
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)
assert eddsa(SEED_1, b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac")


class P256Key:
    alg = "ES256"

    def __init__(self, name):
        self.private = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % (N - 1) + 1
        x, y = p256_times(self.private)
        self.jwk = {"crv": "P-256", "kty": "EC", "x": b64url(x.to_bytes(32, "big")), "y": b64url(y.to_bytes(32, "big"))}

    def sign(self, message):
        return es256(self.private, message)


class Ed25519Key:
    alg = "EdDSA"

    def __init__(self, name):
        self.seed = hashlib.sha256(name.encode()).digest()
        self.jwk = {"crv": "Ed25519", "kty": "OKP", "x": b64url(ed_encode(ed_times(ed_expand(self.seed)[0])))}

    def sign(self, message):
        return eddsa(self.seed, message)


def thumbprint(jwk) -> str:
    return b64url(hashlib.sha256(canonical({n: jwk[n] for n in ("crv", "e", "kty", "n", "x", "y") if n in jwk}).encode()).digest())


# RFC 9449 §6.1 publishes the thumbprint of the key of its examples.
RFC_9449_JWK = {
    "kty": "EC",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    "crv": "P-256",
}
RFC_9449_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
assert thumbprint(RFC_9449_JWK) == RFC_9449_JKT


def jws(header, claims, signer) -> str:
    """`claims` is an object, or the exact text of one."""
    texts = [part if isinstance(part, str) else json.dumps(part, separators=(",", ":")) for part in (header, claims)]
    signing_input = ".".join(b64url(text.encode()) for text in texts)
    return f"{signing_input}.{b64url(signer(signing_input.encode()))}"


