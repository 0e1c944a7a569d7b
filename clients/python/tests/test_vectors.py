"""The shared vectors of `conformance/vectors`, which Rust and TypeScript run too."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from deputize import DecryptionKey, ProtocolError
from deputize.call import resource
from deputize.call.access_token import ExpectedToken, verify_token
from deputize.call.constraints import ConstraintRefused, Constraints
from deputize.call.digest import (
    ABSENT,
    call_digest,
    canonicalize,
    manifest_digest,
    prompt_digest,
    resource_digest,
    tool_digest,
)
from deputize.call.dpop import Expected, VerifiedProof, parse_proof
from deputize.call.jws import JwsRefused
from deputize.call.keys import KeySet
from deputize.call.offers import ACTIONS, Offers, Shown
from deputize.call.strict_json import JsonRefused, parse_object, parse_value

VECTORS = Path(__file__).parents[3] / "conformance" / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def cases(name: str, part: str = "cases", key: str = "case") -> list[Any]:
    return [pytest.param(case, id=str(case.get(key))) for case in load(name)[part]]


@pytest.mark.parametrize("case", cases("strict-json.json", key="name"))
def test_strict_json(case: Any) -> None:
    text = case["text"].encode() if "text" in case else base64.b64decode(case["base64"])
    try:
        parse_object(text)
        refused = None
    except JsonRefused as error:
        refused = error.reason
    assert refused == case["refused"]


@pytest.mark.parametrize("case", cases("jcs.json", key="name"))
def test_jcs(case: Any) -> None:
    assert canonicalize(parse_object(case["text"].encode())).decode() == case["canonical"]
    assert canonicalize(parse_object(case["canonical"].encode())).decode() == case["canonical"]


def test_call_digests() -> None:
    def part(case: Any, name: str) -> Any:
        # An envelope, as a body is: the parts are deeper in it than they are themselves.
        return parse_value(f"[{case[name]}]".encode(), 64)[0] if name in case else ABSENT  # type: ignore[index]

    seen: dict[str, str] = {}
    for case in load("call-digest.json")["cases"]:
        try:
            arguments = part(case, "arguments")
            arguments = {} if arguments is ABSENT else arguments
            steering = part(case, "input_responses"), part(case, "request_state")
            digest = call_digest(case["method"], case["name"], arguments, *steering)
        except JsonRefused as refused:
            assert refused.reason == case["refused"], case["case"]
            continue
        assert digest == case.get("digest"), case["case"]
        assert (digest in seen) == ("same_as" in case), case["case"]
        assert seen.setdefault(digest, case["case"]) in (case["case"], case.get("same_as")), case["case"]
    assert len(seen) > 20


@pytest.mark.parametrize("case", cases("tool-digest.json"))
def test_tool_digests(case: Any) -> None:
    assert tool_digest(parse_object(case["definition"].encode())) == case["digest"]


@pytest.mark.parametrize("case", cases("manifest-digest.json"))
def test_manifest_digests(case: Any) -> None:
    more = [case.get(kind, []) for kind in ("prompts", "resources")]
    assert manifest_digest(case["id"], case["version"], case["tools"], *more) == case["digest"]


@pytest.mark.parametrize("case", cases("reads.json", "prompts"))
def test_prompt_digests(case: Any) -> None:
    assert prompt_digest(parse_object(case["definition"].encode())) == case["digest"]


@pytest.mark.parametrize("case", cases("reads.json", "resources"))
def test_resource_digests(case: Any) -> None:
    assert resource_digest(parse_object(case["definition"].encode())) == case["digest"]


@pytest.mark.parametrize("case", cases("reads.json", "offers"))
def test_what_lists_show(case: Any) -> None:
    kinds = [case["tools"], case["prompts"], case["resources"]]
    offers, shown = Offers(*kinds), Shown(**case["shown"])
    assert offers.digest == case["shown"]["of"]
    for action, names in zip(ACTIONS, kinds, strict=True):
        for name in names:
            assert offers.is_shown(shown, action, name) == (name in case["visible"]), name
            assert not offers.is_shown(None, action, name)
            assert not Offers([*case["tools"], "one more"]).is_shown(shown, action, name)


def test_what_may_be_an_entry() -> None:
    well_formed = load("reads.json")["well_formed"]
    for entry in well_formed["entries"]:
        assert resource.is_entry(entry), entry
    for other in well_formed["others"]:
        assert not resource.is_entry(other), other


@pytest.mark.parametrize("case", cases("reads.json", "entries"))
def test_entries_of_resources(case: Any) -> None:
    entry = case["entry"]
    for uri in case["named"]:
        assert resource.names(entry, uri), uri
        assert resource.find({entry}, uri) == entry, uri
    for uri in case["others"]:
        assert not resource.names(entry, uri), uri
        assert resource.find({entry}, uri) is None, uri


@pytest.mark.parametrize("case", cases("reads.json", "decisions"))
def test_which_entry_decides(case: Any) -> None:
    for each in case["decided"]:
        assert resource.find(set(case["entries"]), each["uri"]) == each["entry"], each["uri"]


def admits(constraints: str, arguments: str) -> bool:
    try:
        Constraints(json.loads(constraints)).admit(parse_object(arguments.encode()))
    except ConstraintRefused:
        return False
    return True


@pytest.mark.parametrize("case", cases("constraints.json", "well_formed"))
def test_constraints(case: Any) -> None:
    assert [text for text in case["admitted"] if not admits(case["constraints"], text)] == []
    assert [text for text in case["refused"] if admits(case["constraints"], text)] == []


@pytest.mark.parametrize("case", cases("constraints.json", "malformed"))
def test_malformed_constraints(case: Any) -> None:
    with pytest.raises(ConstraintRefused):
        Constraints(json.loads(case["constraints"]))


@pytest.mark.parametrize("case", cases("constraints.json", "conjunctions"))
def test_what_a_second_hop_leaves(case: Any) -> None:
    """The broker conjoins; here its outcome admits exactly what both sides admit."""
    for text in case["admitted"] + case["refused"]:
        both = admits(case["left"], text) and admits(case["right"], text)
        assert both == (text in case["admitted"]), text
        if case["outcome"] is not None:
            assert admits(case["outcome"], text) == both, text


def plausible_checks(refused: JwsRefused) -> set[int]:
    """The checks of RFC 9449 §4.3 that a refusal may stand for."""
    by_claim = {"htm another method": 8, "htu another URL": 9, "iat outside the window": 11}
    if refused.reason == "claim":
        return {12} if refused.subject == "ath" else {by_claim.get(f"{refused.subject} {refused.detail}", 3)}
    if refused.reason == "malformed":
        return {4} if "typ" in refused.detail else {2}
    if refused.reason == "header":
        return {3} if refused.subject == "jwk" else {2}
    by_reason: dict[str, set[int]] = {"signature": {6}, "algorithm": {5}, "key": {5, 6, 7, 12}}
    return by_reason.get(refused.reason, set())


@pytest.mark.parametrize("case", cases("dpop.json"))
def test_dpop_proofs(case: Any) -> None:
    try:
        proof = parse_proof(case["proof"]).verify(Expected(**case["expected"]))
    except JwsRefused as refused:
        assert case.get("refused_by_check") in plausible_checks(refused), refused
        return
    verified = {**case["verified"], "tag": bytes.fromhex(case["verified"]["tag"])}
    assert proof == VerifiedProof(**verified)


def name_of(refused: JwsRefused) -> str:
    """The name that the vectors have for a refusal."""
    if refused.reason == "malformed":
        return next((name for name in ("typ", "kid") if name in refused.detail), "form")
    if refused.reason == "claim":
        return refused.subject if refused.subject in ("iss", "aud", "exp", "nbf", "iat") else "shape"
    return {"too_long": "form", "algorithm": "alg", "header": "header", "unknown_key": "kid"}.get(
        refused.reason, refused.reason
    )


TOKENS = load("tokens.json")


@pytest.mark.parametrize("case", cases("tokens.json"))
def test_tool_call_tokens(case: Any) -> None:
    expected = case["expected"]
    refused = None
    try:
        verify_token(
            case["token"],
            KeySet.from_jwks(json.dumps(TOKENS["jwks"]).encode()),
            ExpectedToken(**{"audience": None, **expected}),
        )
    except JwsRefused as error:
        refused = name_of(error)
        if "shape" in error.detail:  # a time that is missing where it is due is a matter of shape
            refused = "shape"
    # An algorithm that no key of the set is for is seen as such only when the key is looked for.
    assert refused == case["refused"] or (refused, case["refused"]) == ("kid", "alg")


SEALED = load("sealed.json")


def decryption_keys() -> dict[str, DecryptionKey]:
    keys = SEALED["keys"]
    pem = f"-----BEGIN PRIVATE KEY-----\n{keys['rsa_pkcs8']}\n-----END PRIVATE KEY-----\n"
    rsa = {**RSAKey.import_key(pem).as_dict(private=True), "kid": keys["rsa_kid"], "use": "enc"}
    return {"ECDH-ES+A256KW": DecryptionKey.from_jwk(keys["ec"]), "RSA-OAEP-256": DecryptionKey.from_jwk(rsa)}


@pytest.mark.parametrize("name", SEALED["opened"])
def test_what_another_library_sealed_to_a_key_is_opened_with_it(name: str) -> None:
    keys, sealed = decryption_keys(), SEALED["opened"][name].encode()
    own = keys.pop(name.partition(",")[0])
    assert json.loads(own.open(sealed)) == SEALED["content"]
    for other in keys.values():
        with pytest.raises(ProtocolError):
            other.open(sealed)


@pytest.mark.parametrize("name", SEALED["refused"])
def test_what_is_sealed_in_another_way_or_to_another_key_is_refused(name: str) -> None:
    for key in decryption_keys().values():
        with pytest.raises(ProtocolError, match="cannot be opened"):
            key.open(SEALED["refused"][name].encode())
