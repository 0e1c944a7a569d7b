"""DPoP proofs and tool-call tokens by fixed keys, each with what must come of it said by hand."""

import base64
import copy
import hashlib
import json

from reference import N, RFC_9449_JKT, RFC_9449_JWK, Ed25519Key, P256Key, b64url, digest, jws, thumbprint

NOW = 1_795_000_000
CLIENT, OTHER = P256Key("client"), P256Key("other client")
ED_CLIENT = Ed25519Key("Ed25519 client")
ACCESS_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"  # RFC 9449 §7.1
ATH = b64url(hashlib.sha256(ACCESS_TOKEN.encode()).digest())
assert ATH == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
ENDPOINT = "https://broker.example.com/token"
AT_TOKEN = {"htm": "POST", "htu": ENDPOINT, "now_seconds": NOW, "window_seconds": 30}
AT_RESOURCE = {
    **AT_TOKEN, "htu": "https://crm.example.com/mcp", "access_token": ACCESS_TOKEN, "jkt": thumbprint(CLIENT.jwk),
}
DPOP = []


def case(name, proof, expected, refused_by=None, key=CLIENT, jti="j1", iat=NOW):
    entry = {"case": name, "proof": proof, "expected": expected}
    if refused_by is None:
        jkt = thumbprint(key if isinstance(key, dict) else key.jwk)
        tag = hashlib.sha256(f"{jkt}\0{jti}".encode()).digest()[:16].hex()
        entry["verified"] = {"jkt": jkt, "jti": jti, "iat": iat, "tag": tag}
    else:
        entry["refused_by_check"] = refused_by
    DPOP.append(entry)


def proof(key=CLIENT, header=None, claims=None, without=(), sign=None):
    header = {"typ": "dpop+jwt", "alg": key.alg, "jwk": key.jwk} | (header or {})
    claims = {"jti": "j1", "htm": "POST", "htu": ENDPOINT, "iat": NOW} | (claims or {})
    for name in without:
        header.pop(name, None)
        claims.pop(name, None)
    return jws(header, claims, sign or key.sign)


def resource_proof(claims=None, **more):
    return proof(claims={"htu": "https://crm.example.com/mcp", "ath": ATH} | (claims or {}), **more)


HEAD_9449 = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19."
)
FIGURE_2 = HEAD_9449 + (
    "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0"
    "IjoxNTYyMjYyNjE2fQ."
    "2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
FIGURE_13 = HEAD_9449 + (
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRy"
    "ZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9."
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
IN_FIGURE_2 = {"htm": "POST", "htu": "https://server.example.com/token", "now_seconds": 1562262616, "window_seconds": 5}
IN_FIGURE_13 = {
    "htm": "GET", "htu": "https://resource.example.org/protectedresource", "now_seconds": 1562262618,
    "window_seconds": 5, "access_token": ACCESS_TOKEN, "jkt": RFC_9449_JKT,
}
case("RFC 9449, figure 2", FIGURE_2, IN_FIGURE_2, key=RFC_9449_JWK, jti="-BwC3ESc6acc2lTc", iat=1562262616)
case("RFC 9449, figure 13", FIGURE_13, IN_FIGURE_13, key=RFC_9449_JWK, jti="e1j3V_bKic8-LAEB", iat=1562262618)
case("RFC 9449, figure 2, at figure 13's resource", FIGURE_2, IN_FIGURE_13, 8)
case("RFC 9449, figure 2, signature's last character changed", FIGURE_2[:-1] + "w", IN_FIGURE_2, 6)

case("ES256", proof(), AT_TOKEN)
case("Ed25519", proof(ED_CLIENT), AT_TOKEN, key=ED_CLIENT)
case("at a resource", resource_proof(), AT_RESOURCE)
case("another jti has another tag", proof(claims={"jti": "j2"}), AT_TOKEN, jti="j2")
case("the same jti under another key has another tag", proof(OTHER), AT_TOKEN, key=OTHER)
case("with a nonce", proof(claims={"nonce": "n-1"}), AT_TOKEN)
case("unknown claims do no harm", proof(claims={"x": [1]}), AT_TOKEN)
case("typ in full and in capitals", proof(header={"typ": "application/DPoP+JWT"}), AT_TOKEN)

# Check 2: one well-formed JWT.
good = proof()
head, body, signature = good.split(".")
case("empty", "", AT_TOKEN, 2)
case("two proofs in one header", f"{good}, {good}", AT_TOKEN, 2)
case("two parts", f"{head}.{body}", AT_TOKEN, 2)
case("four parts", f"{good}.", AT_TOKEN, 2)
case("padding", f"{head}=.{body}.{signature}", AT_TOKEN, 2)
case("white space", f" {good}", AT_TOKEN, 2)
standard = lambda part: base64.b64encode(base64.urlsafe_b64decode(part + "==")).decode().rstrip("=")
case("the standard alphabet", f"{head}.{body}.{standard(signature)}", AT_TOKEN, 2)
assert standard(signature) != signature
case("trailing bits", good[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[good[-1]], AT_TOKEN, 2)
case("claims that are an array", jws({"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT.jwk}, "[1]", CLIENT.sign), AT_TOKEN, 2)
twice = json.dumps({"jti": "j1", "htm": "POST", "htu": ENDPOINT, "iat": NOW})[:-1] + f',"iat":{NOW}}}'
case("iat twice", jws({"typ": "dpop+jwt", "alg": "ES256", "jwk": CLIENT.jwk}, twice, CLIENT.sign), AT_TOKEN, 2)
case("crit", proof(header={"crit": ["exp"]}), AT_TOKEN, 2)
case("b64", proof(header={"b64": False}), AT_TOKEN, 2)
case("jku", proof(header={"jku": "https://evil.example/jwks"}), AT_TOKEN, 2)
# Check 3: required claims, each of its type.
for claim in ("jti", "htm", "htu", "iat"):
    case(f"{claim} missing", proof(without=[claim]), AT_TOKEN, 3)
    case(f"{claim} null", proof(claims={claim: None}), AT_TOKEN, 3)
case("jwk missing", proof(without=["jwk"]), AT_TOKEN, 3)
case("jti empty", proof(claims={"jti": ""}), AT_TOKEN, 3)
case("jti of 256 bytes", proof(claims={"jti": "j" * 256}), AT_TOKEN, jti="j" * 256)
case("jti of 257 bytes", proof(claims={"jti": "j" * 257}), AT_TOKEN, 3)
case("jti of 10 KiB", proof(claims={"jti": "j" * 10_240}), AT_TOKEN, 3)
case("jti with NUL", proof(claims={"jti": "j\0"}), AT_TOKEN, 3)
case("jti that is a number", proof(claims={"jti": 1}), AT_TOKEN, 3)
for iat in (str(NOW), float(NOW) + 0.5, -1, True):
    case(f"iat {iat!r}", proof(claims={"iat": iat}), AT_TOKEN, 3)
case("iat with a fraction of zero", proof(claims={"iat": float(NOW)}), AT_TOKEN, 3)
case("nonce that is a number", proof(claims={"nonce": 1}), AT_TOKEN, 3)
# Check 4: typ.
for typ in ("JWT", "at+jwt", "dpop", "", "application/x/dpop+jwt", 1):
    case(f"typ {typ!r}", proof(header={"typ": typ}), AT_TOKEN, 4)
case("typ missing", proof(without=["typ"]), AT_TOKEN, 4)
# Check 5: alg.
for alg in ("none", "nOnE", "", "HS256", "es256", "ES256K", "ES512", None):
    case(f"alg {alg!r}", proof(header={"alg": alg}), AT_TOKEN, 5)
case("alg missing", proof(without=["alg"]), AT_TOKEN, 5)
case("alg of another key type", proof(header={"alg": "EdDSA"}), AT_TOKEN, 5)
case("alg of another curve", proof(header={"alg": "ES384"}), AT_TOKEN, 5)
case("HS256 with a symmetric key", proof(header={"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}), AT_TOKEN, 5)
# Check 6: the signature, by this key.
case("another key's signature", proof(sign=OTHER.sign), AT_TOKEN, 6)
case("another claim under the signature", f"{head}.{proof(claims={'jti': 'j2'}).split('.')[1]}.{signature}", AT_TOKEN, 6)
case("no signature", f"{head}.{body}.", AT_TOKEN, 6)
case("r and s of zero", proof(sign=lambda _: bytes(64)), AT_TOKEN, 6)
case("r of zero", proof(sign=lambda message: bytes(32) + CLIENT.sign(message)[32:]), AT_TOKEN, 6)
case("s of zero", proof(sign=lambda message: CLIENT.sign(message)[:32] + bytes(32)), AT_TOKEN, 6)
case("s of the group order", proof(sign=lambda message: CLIENT.sign(message)[:32] + N.to_bytes(32, "big")), AT_TOKEN, 6)
case("a byte too many", proof(sign=lambda message: CLIENT.sign(message) + b"\0"), AT_TOKEN, 6)
twin = lambda s: s[:32] + (N - int.from_bytes(s[32:], "big")).to_bytes(32, "big")
case("the malleable twin is the same proof", proof(sign=lambda message: twin(CLIENT.sign(message))), AT_TOKEN)
case("Ed25519 signature of zeros", proof(ED_CLIENT, sign=lambda _: bytes(64)), AT_TOKEN, 6)
off_curve = CLIENT.jwk | {"y": OTHER.jwk["y"]}
case("point off its curve", proof(header={"jwk": off_curve}), AT_TOKEN, 6)
case("point of zeros", proof(header={"jwk": CLIENT.jwk | {"x": b64url(bytes(32)), "y": b64url(bytes(32))}}), AT_TOKEN, 6)
case("coordinate of 31 bytes", proof(header={"jwk": CLIENT.jwk | {"x": b64url(bytes(31))}}), AT_TOKEN, 6)
case("coordinate with a leading zero", proof(header={"jwk": CLIENT.jwk | {"x": b64url(b"\0" + bytes(32))}}), AT_TOKEN, 6)
case("unknown curve", proof(header={"jwk": CLIENT.jwk | {"crv": "secp256k1"}}), AT_TOKEN, 5)
case("RSA of 1,024 bits", proof(header={"alg": "RS256", "jwk": {"kty": "RSA", "e": "AQAB", "n": b64url(b"\xff" * 128)}}), AT_TOKEN, 5)
case("RSA with an exponent of 1", proof(header={"alg": "RS256", "jwk": {"kty": "RSA", "e": "AQ", "n": b64url(b"\xff" * 256)}}), AT_TOKEN, 5)
# Check 7: a private or symmetric key.
for member in ("d", "k", "p"):
    case(f"private member {member}", proof(header={"jwk": CLIENT.jwk | {member: b64url(b"\1" * 32)}}), AT_TOKEN, 7)
case("symmetric key", proof(header={"jwk": {"kty": "oct", "k": b64url(bytes(32))}}), AT_TOKEN, 7)
case("key for encryption", proof(header={"jwk": CLIENT.jwk | {"use": "enc"}}), AT_TOKEN, 7)
case("key as browsers export it", proof(header={"jwk": CLIENT.jwk | {"ext": True, "key_ops": ["verify"]}}), AT_TOKEN)
# Check 8: the method.
for htm in ("GET", "post", "POST "):
    case(f"htm {htm!r}", proof(claims={"htm": htm}), AT_TOKEN, 8)
# Check 9: the URL, "ignoring any query and fragment parts".
for htu in (
    ENDPOINT + "?x=1", ENDPOINT + "#f", ENDPOINT + "?x=1#f", "HTTPS://Broker.Example.COM/token",
    "https://broker.example.com:443/token", "https://broker.example.com:/token",
):
    case(f"htu {htu}", proof(claims={"htu": htu}), AT_TOKEN)
for htu in (
    "http://broker.example.com/token", "https://broker.example.com:8443/token", "https://broker.example.com:80/token",
    "https://broker.example.com:0443/token", "https://evil.example/token", "https://broker.example.com.evil.example/token",
    "https://broker.example.com./token", "https://user@broker.example.com/token", "https://broker.example.com/Token",
    "https://broker.example.com/token/", "https://broker.example.com//token", "https://broker.example.com/x/../token",
    "https://broker.example.com/./token", "https://broker.example.com/%74oken", "https://broker.example.com/token%2F",
    "https://broker.example.com/token;x", "https://broker.example.com", "https://broker.example.com?/token",
    "//broker.example.com/token", "/token", "token", "https:/broker.example.com/token", "https://broker.example.com\\token",
    "https://evil.example#@broker.example.com/token", "x" * 2049,
):
    case(f"htu {htu[:80]}", proof(claims={"htu": htu}), AT_TOKEN, 9 if len(htu) <= 2048 else 3)
ROOT = AT_TOKEN | {"htu": "https://[2001:db8::1]/"}
case("no path is the root path", proof(claims={"htu": "https://[2001:DB8::1]:443"}), ROOT)
case("another address", proof(claims={"htu": "https://[2001:db8::2]"}), ROOT, 9)
case("another port of an address", proof(claims={"htu": "https://[2001:db8::1]:1"}), ROOT, 9)
SLASH = AT_TOKEN | {"htu": "https://broker.example.com/a%2Fb"}
case("an encoded slash is itself", proof(claims={"htu": "https://broker.example.com/a%2Fb"}), SLASH)
case("an encoded slash is no slash", proof(claims={"htu": "https://broker.example.com/a/b"}), SLASH, 9)
case("an encoded slash in another case", proof(claims={"htu": "https://broker.example.com/a%2fb"}), SLASH, 9)
# Check 11: the time.
for offset in (-30, 30):
    case(f"iat {offset:+} at the edge", proof(claims={"iat": NOW + offset}), AT_TOKEN, iat=NOW + offset)
for offset in (-31, 31, -60, 60):
    case(f"iat {offset:+}", proof(claims={"iat": NOW + offset}), AT_TOKEN, 11)
case("iat at the end of numbers", proof(claims={"iat": 2**53 - 1}), AT_TOKEN, 11)
# Check 12: the access token, and the key that it is bound to.
case("ath missing", resource_proof(without=["ath"]), AT_RESOURCE, 12)
case("ath of another token", resource_proof({"ath": b64url(hashlib.sha256(b"x").digest())}), AT_RESOURCE, 12)
case("ath padded", resource_proof({"ath": ATH + "="}), AT_RESOURCE, 12)
case("ath that is the token", resource_proof({"ath": ACCESS_TOKEN}), AT_RESOURCE, 12)
case("a good proof by another key", resource_proof(key=OTHER), AT_RESOURCE, 12)
case("ath where no token is due does no harm", resource_proof(), {k: v for k, v in AT_RESOURCE.items() if k != "access_token"})

# --- tool-call tokens ------------------------------------------------------------------------------------------

BROKER, ED_BROKER, STRANGER = P256Key("broker"), Ed25519Key("Ed25519 broker"), P256Key("stranger")
JWKS = {
    "keys": [
        BROKER.jwk | {"kid": "2026-11", "use": "sig", "alg": "ES256"},
        ED_BROKER.jwk | {"kid": "2026-11-ed", "use": "sig", "alg": "EdDSA"},
        {"kty": "oct", "k": "AAAA", "kid": "symmetric"},
    ]
}
SERVER = "https://crm.example.com/mcp"
EXPECTED = {"issuer": "https://broker.example.com", "audience": SERVER, "now_seconds": NOW, "leeway_seconds": 5}
SOME_DIGEST = digest("mcp-manifest/1", {})
L3 = {
    "iss": "https://broker.example.com", "sub": "corp|https://idp.example.com|alice", "tenant": "corp", "aud": SERVER,
    "client_id": "support-bot", "iat": NOW, "nbf": NOW, "exp": NOW + 60, "jti": "t1", "scope": "tool:refund_payment",
    "cnf": {"jkt": thumbprint(CLIENT.jwk)},
    "act": {"sub": "spiffe://corp.example/agent/support-bot"},
    "txn": "019a-txn",
    "authorization_details": [
        {
            "type": "mcp_tool_call", "locations": [SERVER], "actions": ["tools/call"], "identifier": "refund_payment",
            "tool_digest": SOME_DIGEST, "manifest_digest": SOME_DIGEST, "call_digest": SOME_DIGEST, "max_uses": 1,
            "policy": {"digest": SOME_DIGEST, "ids": ["refunds"]},
        }
    ],
    "log": {"origin": "replica-1", "index": 7},
}
TOKENS = []


def granted(**changes):
    """The L3 claims with changes to the granted detail; `None` takes a member away."""
    claims = copy.deepcopy(L3)
    detail = claims["authorization_details"][0] | changes
    claims["authorization_details"] = [{name: value for name, value in detail.items() if value is not None}]
    return claims


L2 = granted(call_digest=None, constraints={"/amount_cents": {"maximum": 5000}, "/id": {"enum": ["x"]}}, max_uses=3)
L1 = granted(call_digest=None, max_uses=None)
L0 = granted(call_digest=None, max_uses=None, identifier=None, tool_digest=None, actions=["tools/list", "prompts/list"])


def token(claims=L3, key=BROKER, kid="2026-11", header=None, sign=None):
    header = {"alg": key.alg, "typ": "at+jwt", "kid": kid} | (header or {})
    return jws({n: v for n, v in header.items() if v is not None}, claims, sign or key.sign)


def look(name, text, refused=None, **expected):
    TOKENS.append({"case": name, "token": text, "expected": EXPECTED | expected, "refused": refused})


def claims(**changes):
    return {name: value for name, value in (copy.deepcopy(L3) | changes).items() if value is not None}


for level, content in {"L3": L3, "L2": L2, "L1": L1, "L0": L0}.items():
    look(level, token(content))
look("Ed25519", token(key=ED_BROKER, kid="2026-11-ed"))
look("without kid, one key fits", token(header={"kid": None}))
look("for anyone", token(), audience=None)
look("an unknown claim", token(claims(x={"y": [1]})))
look("nested actors", token(claims(act={"sub": "b", "act": {"sub": "a"}})))
look("no actor", token(claims(act=None)))
look("a second before its end", token(), now_seconds=NOW + 59, leeway_seconds=0)
look("within the leeway after its end", token(), now_seconds=NOW + 64)
look("within the leeway before its beginning", token(), now_seconds=NOW - 5)
look("at its end", token(), "exp", now_seconds=NOW + 60, leeway_seconds=0)
look("a second beyond the leeway", token(), "exp", now_seconds=NOW + 66)
look("not yet valid", token(), "nbf", now_seconds=NOW - 6)
look("iat ahead, nbf not", token(claims(iat=NOW + 6)), "iat")
for name in ("exp", "nbf", "iat"):
    for value in (str(NOW + 60), float(NOW + 60), -1, 2**63, 1e300, None, True, [NOW]):
        if value is None:
            look(f"{name} missing", token(claims(**{name: None})), "exp" if name == "exp" else "shape")
        else:
            # Beyond the safe integers it is the JSON that is refused.
            look(f"{name} {value!r}", token(claims(**{name: value})), "form" if value in (2**63, 1e300) else name)
look("exp before iat", token(claims(exp=NOW - 1)), "exp")
look("another issuer", token(claims(iss="https://broker.example.org")), "iss")
look("issuer with a slash", token(claims(iss="https://broker.example.com/")), "iss")
look("issuer in another case", token(claims(iss="https://Broker.example.com")), "iss")
look("issuer that is an array", token(claims(iss=["https://broker.example.com"])), "iss")
look("another audience", token(), "aud", audience="https://mail.example.com/mcp")
look("audience as an array", token(claims(aud=[SERVER])), "aud")
look("audience empty", token(claims(aud="")), "aud")
look("audience missing", token(claims(aud=None)), "aud")
for typ in ("JWT", "dpop+jwt", "txntoken+jwt", "logout+jwt", "oauth-id-jag+jwt", None):
    look(f"typ {typ}", token(header={"typ": typ}), "typ")
look("typ in full", token(header={"typ": "application/at+jwt"}))
for alg in ("none", "nOnE", "", "HS256", "ES384", "RS256", "EdDSA", None):
    look(f"alg {alg!r}", token(header={"alg": alg}), "alg")
look("HS256 by the public key", token(header={"alg": "HS256"}, sign=lambda message: hashlib.sha256(message).digest()), "alg")
look("a stranger's key", token(key=STRANGER), "signature")
look("a stranger's key in the header", token(key=STRANGER, header={"jwk": STRANGER.jwk}), "header")
for name, value in {
    "jku": "https://evil.example/jwks", "x5u": "https://evil.example/cert", "x5c": ["AAAA"], "crit": ["x"], "b64": False,
}.items():
    look(f"header {name}", token(header={name: value}), "header")
for kid in ("2026-12", "../2026-11", "2026-11'", "2026-11\r\n", "2026-11\0", "", "k" * 257, 1, "symmetric", "2026-11-ed"):
    look(f"kid {kid if len(str(kid)) < 40 else '…'!r}", token(header={"kid": kid}), "kid")
whole = token()
head, body, signature = whole.split(".")
look("no signature", f"{head}.{body}.", "signature")
look("two parts", f"{head}.{body}", "form")
look("five parts, as a JWE has", f"{head}.{body}.{signature}.{body}.{signature}", "form")
look("10,000 dots", "." * 10_000, "form")
look("over 16 KiB", token(claims(x="x" * 16_384)), "form")
look("JSON serialization", json.dumps({"protected": head, "payload": body, "signature": signature}), "form")
look("padding", whole + "==", "form")
look("a newline after it", whole + "\n", "form")
look("not ASCII", whole + "\u00e9", "form")
look("trailing bits", whole[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[whole[-1]], "form")
text = json.dumps(L3)
look("sub twice", token(text[:-1] + ',"sub":"mallory"}'), "form")
look("a member of act twice", token(text.replace('"act": {', '"act": {"sub": "mallory", ')), "form")
look("exp twice, by an escape", token(text[:-1] + ',"\\u0065xp":1}'), "form")
look("128 levels", token(claims(x=json.loads("[" * 128 + "]" * 128))), "form")
look("an actor 40 deep", token(claims(act=json.loads('{"sub":"a","act":' * 39 + '{"sub":"a"}' + "}" * 39))), "form")
look("256 claims", token(L3 | {f"x{n}": 0 for n in range(256 - len(L3))}))
look("257 claims", token(L3 | {f"x{n}": 0 for n in range(257 - len(L3))}), "form")
look("claims with a lone surrogate", token(text[:-1] + ',"x":"\\ud800"}'), "form")
for name in ("sub", "tenant", "client_id", "jti", "scope", "cnf", "txn", "authorization_details", "log"):
    look(f"{name} missing", token(claims(**{name: None})), "shape")
    look(f"{name} of the wrong type", token(claims(**{name: 1})), "shape")
for name in ("sub", "tenant", "client_id", "jti", "scope", "txn"):
    look(f"{name} empty", token(claims(**{name: ""})), "shape")
look("act that is a string", token(claims(act="a")), "shape")
look("act without sub", token(claims(act={"act": {"sub": "a"}})), "shape")
look("act with more", token(claims(act={"sub": "a", "iss": "x"})), "shape")
look("two details", token(claims(authorization_details=L3["authorization_details"] * 2)), "shape")
look("no detail", token(claims(authorization_details=[])), "shape")
look("two confirmations", token(claims(cnf={"jkt": thumbprint(CLIENT.jwk), "x5t#S256": SOME_DIGEST})), "shape")
look("an empty confirmation", token(claims(cnf={})), "shape")
look("a confirmation that is no digest", token(claims(cnf={"jkt": "x"})), "shape")
look("a certificate's confirmation", token(claims(cnf={"x5t#S256": SOME_DIGEST})))
look("another type of detail", token(granted(type="payment")), "shape")
look("an unknown member of the detail", token(granted(x=1)), "shape")
look("another location", token(granted(locations=["https://mail.example.com/mcp"])), "shape")
look("two locations", token(granted(locations=[SERVER, SERVER])), "shape")
PROMPT = granted(
    actions=["prompts/get"], identifier="weather", tool_digest=None, prompt_digest=SOME_DIGEST, call_digest=None, max_uses=None,
)
RESOURCE = granted(actions=["resources/read"], identifier="demo://docs/a.md", tool_digest=None)


def regranted(claims, **changes):
    claims = copy.deepcopy(claims)
    detail = claims["authorization_details"][0] | changes
    claims["authorization_details"] = [{name: value for name, value in detail.items() if value is not None}]
    return claims


SHOWN = {"of": SOME_DIGEST, "bits": "AQ"}
look("a prompt", token(PROMPT))
look("one reading of a resource", token(RESOURCE))
look("lists that show something", token(regranted(L0, shown=SHOWN)))
look("lists that show nothing", token(regranted(L0, shown=SHOWN | {"bits": ""})))
look("a prompt that is not pinned", token(regranted(PROMPT, prompt_digest=None)), "shape")
look("a prompt pinned as a tool", token(regranted(PROMPT, prompt_digest=None, tool_digest=SOME_DIGEST)), "shape")
look("a prompt pinned as both", token(regranted(PROMPT, tool_digest=SOME_DIGEST)), "shape")
look("a tool pinned as a prompt", token(granted(tool_digest=None, prompt_digest=SOME_DIGEST)), "shape")
look("a resource pinned as a tool", token(regranted(RESOURCE, tool_digest=SOME_DIGEST)), "shape")
look("lists and a tool's digest", token(regranted(L0, tool_digest=SOME_DIGEST)), "shape")
look("lists and a prompt's digest", token(regranted(L0, prompt_digest=SOME_DIGEST)), "shape")
look("lists beside a call", token(granted(shown=SHOWN)), "shape")
for bits in ("AQA", "AR", "A", "*", "AQ==", 1):
    look(f"lists of {bits!r}", token(regranted(L0, shown=SHOWN | {"bits": bits})), "shape")
look("lists of more than there can be", token(regranted(L0, shown=SHOWN | {"bits": b64url(b"\1" * 513)})), "shape")
look("lists of nothing in particular", token(regranted(L0, shown={"bits": "AQ"})), "shape")
look("lists with more", token(regranted(L0, shown=SHOWN | {"x": 1})), "shape")
look("no action", token(granted(actions=[])), "shape")
look("two actions on one tool", token(granted(actions=["tools/call", "prompts/get"])), "shape")
look("one call of no tool", token(granted(identifier=None)), "shape")
look("a tool that is not pinned", token(granted(tool_digest=None)), "shape")
look("a digest of 31 bytes", token(granted(call_digest=b64url(bytes(31)))), "shape")
look("a digest with trailing bits", token(granted(call_digest=b64url(bytes(32))[:-1] + "B")), "shape")
look("a digest in the standard alphabet", token(granted(call_digest="/" * 42 + "8")), "shape")
look("one call, two uses", token(granted(max_uses=2)), "shape")
look("one call, uses not said", token(granted(max_uses=None)), "shape")
look("one call and constraints", token(granted(constraints={"/a": {"enum": [1]}})), "shape")
look("constraints, uses not said", token(granted(call_digest=None, max_uses=None, constraints={"/a": {"enum": [1]}})), "shape")
look("constraints, no use", token(granted(call_digest=None, max_uses=0, constraints={"/a": {"enum": [1]}})), "shape")
look("malformed constraints", token(granted(call_digest=None, constraints={"/a": {}})), "shape")
look("no constraints", token(granted(call_digest=None, constraints={})), "shape")
