#!/usr/bin/env python3
"""Writes the vectors beside this file: `python3 generate.py`.

What is accepted or refused is said by hand in tables.py and proofs.py; where reference.py can decide too, it must
agree, or nothing is written.
"""

import base64
import hashlib
import json
import pathlib

from proofs import DPOP, JWKS, TOKENS
from reference import (
    Refused,
    admits,
    b64url,
    call_form,
    canonical,
    deciding_entry,
    digest,
    is_entry,
    is_well_formed,
    parse_strict,
    tool_form,
)
from tables import (
    CALLS,
    CANONICAL,
    CONJUNCTIONS,
    CONSTRAINTS,
    ENTRIES,
    MALFORMED_CONSTRAINTS,
    MANIFESTS,
    MANIFESTS_WITH_MORE,
    OFFERS,
    PROMPTS,
    RESOURCE_DECISIONS,
    RESOURCE_ENTRIES,
    RESOURCES,
    STRICT_JSON,
    TOOLS,
)

HERE = pathlib.Path(__file__).parent


def write(name, description, **content):
    text = json.dumps({"description": description, **content}, indent=2, ensure_ascii=True)
    (HERE / name).write_text(text + "\n", encoding="ascii")
    print(name, {key: len(value) for key, value in content.items()})


def strict_json():
    cases = []
    for name, text, expected in STRICT_JSON:
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        try:
            parse_strict(raw)
            outcome = None
        except Refused as refused:
            outcome = str(refused)
        assert outcome == expected, (name, outcome, expected)
        try:
            where = {"text": raw.decode("utf-8")}
        except UnicodeDecodeError:
            where = {"base64": base64.b64encode(raw).decode()}
        cases.append({"name": name, **where, "refused": expected})
    write(
        "strict-json.json",
        "Objects to parse strictly. `refused`: null where accepted, else syntax, duplicate, number, depth or "
        "not_object. `base64` (standard alphabet) stands for `text` that is not UTF-8.",
        cases=cases,
    )


def jcs():
    cases = [{"name": n, "text": t, "canonical": canonical(parse_strict(t.encode()))} for n, t in CANONICAL]
    write("jcs.json", "Accepted texts and their RFC 8785 form.", cases=cases)


def calls():
    cases, seen = [], {}
    for call in CALLS:
        call = dict(call)
        expected = call.pop("refused", None)
        try:
            form = call_form(call)
            assert isinstance(form["a"], dict), call
            assert expected is None, call
            result = {"canonical": canonical(form), "digest": digest("mcp-call/1", form)}
        except Refused as refused:
            assert str(refused) == expected, (call, str(refused))
            result = {"refused": expected}
        same_as = call.get("same_as")
        if "digest" in result:
            assert (result["digest"] in seen.values()) == (same_as is not None), call
            assert same_as is None or seen[same_as] == result["digest"], call
            seen[call["case"]] = result["digest"]
        cases.append({**call, **result})
    write(
        "call-digest.json",
        "call_digest. `arguments`, `input_responses` and `request_state` are JSON texts, absent where the call has "
        "none. `same_as` names an earlier case of equal digest; all others differ.",
        cases=cases,
    )


def tools():
    cases = []
    for name, text in TOOLS:
        form = tool_form(text)
        cases.append({"case": name, "definition": text, "canonical": canonical(form), "digest": digest("mcp-tool/1", form)})
    write("tool-digest.json", "tool_digest over the pinned members of `definition`, a JSON text.", cases=cases)


def manifests():
    cases = []
    for name, manifest_id, version, seeds in MANIFESTS:
        tool_digests = [b64url(hashlib.sha256(seed.encode()).digest()) for seed in seeds]
        form = {"id": manifest_id, "version": version, "tools": sorted(tool_digests)}
        result = {"canonical": canonical(form), "digest": digest("mcp-manifest/1", form)}
        cases.append({"case": name, "id": manifest_id, "version": version, "tools": tool_digests, **result})
    assert cases[0]["digest"] == cases[1]["digest"], "order does not matter"
    for name, manifest_id, version, *seeds in MANIFESTS_WITH_MORE:
        digests = [[b64url(hashlib.sha256(seed.encode()).digest()) for seed in some] for some in seeds]
        tools, prompts, resources = digests
        form = {"id": manifest_id, "version": version, "tools": sorted(tools)}
        form |= {"prompts": sorted(prompts)} if prompts else {}
        form |= {"resources": sorted(resources)} if resources else {}
        result = {"canonical": canonical(form), "digest": digest("mcp-manifest/1", form)}
        parts = {"tools": tools, "prompts": prompts, "resources": resources}
        cases.append({"case": name, "id": manifest_id, "version": version, **parts, **result})
    write(
        "manifest-digest.json",
        "manifest_digest; `tools`, `prompts` and `resources` are sorted as text before they are digested. The latter two "
        "are left out of the form where there are none.",
        cases=cases,
    )


def reads():
    def pinned(text, members):
        definition = parse_strict(text.encode())
        return {name: definition[name] for name in members if name in definition}

    prompts = [
        (name, text, pinned(text, ["name", "title", "description", "arguments"]), "mcp-prompt/1") for name, text in PROMPTS
    ]
    resources = [
        (name, text, pinned(text, ["uri", "name", "title", "description"]), "mcp-resource/1") for name, text in RESOURCES
    ]
    cases = [
        [
            {"case": name, "definition": text, "canonical": canonical(form), "digest": digest(prefix, form)}
            for name, text, form, prefix in kind
        ]
        for kind in (prompts, resources)
    ]
    offers = []
    for name, tools, prompts, resources, shown in OFFERS:
        form = {"tools": sorted(tools), "prompts": sorted(prompts), "resources": sorted(resources)}
        ordered = [*form["tools"], *form["prompts"], *form["resources"]]
        bits = bytearray((len(ordered) + 7) // 8)
        for number, offer in enumerate(ordered):
            bits[number // 8] |= (offer in shown) << number % 8
        said = {"of": digest("mcp-offers/1", form), "bits": b64url(bytes(bits).rstrip(b"\0"))}
        parts = {"tools": tools, "prompts": prompts, "resources": resources}
        offers.append({"case": name, **parts, "visible": shown, "shown": said})
    for entry in ENTRIES[0] + ENTRIES[1]:
        assert is_entry(entry) == (entry in ENTRIES[0]), entry
    for entry, named, others in RESOURCE_ENTRIES:
        for uri in named + others:
            assert deciding_entry([entry], uri) == (entry if uri in named else None), (entry, uri)
    for name, entries, decisions in RESOURCE_DECISIONS:
        for uri, expected in decisions.items():
            assert deciding_entry(entries, uri) == expected, (name, uri, deciding_entry(entries, uri))
    write(
        "reads.json",
        "Digests of prompts and of resources' entries; what an L0 token says of what lists show (`shown`: offers sorted by "
        "their bytes, tools first, then prompts, then resources; one bit each, the first the lowest of the first byte; zero "
        "bytes at the end left out); what may be a registry entry; which URIs an entry names; which of several entries decides about a URI, null "
        "where nothing names it.",
        prompts=cases[0],
        resources=cases[1],
        offers=offers,
        well_formed={"entries": ENTRIES[0], "others": ENTRIES[1]},
        entries=[{"entry": entry, "named": named, "others": others} for entry, named, others in RESOURCE_ENTRIES],
        decisions=[
            {"case": name, "entries": entries, "decided": [{"uri": uri, "entry": entry} for uri, entry in decided.items()]}
            for name, entries, decided in RESOURCE_DECISIONS
        ],
    )


def constraints():
    well_formed = []
    for name, text, admitted, refused in CONSTRAINTS:
        rules = json.loads(text)
        assert is_well_formed(rules), name
        for arguments, expected in [(a, True) for a in admitted] + [(a, False) for a in refused]:
            assert admits(rules, parse_strict(arguments.encode())) == expected, (name, arguments)
        well_formed.append({"case": name, "constraints": text, "admitted": admitted, "refused": refused})
    for name, text in MALFORMED_CONSTRAINTS:
        try:
            assert not is_well_formed(json.loads(text)), name
        except (TypeError, AttributeError):
            pass  # not even of the right type
    conjunctions = []
    for name, left, right, outcome, admitted, refused in CONJUNCTIONS:
        for arguments in admitted + refused:
            value = parse_strict(arguments.encode())
            both = admits(json.loads(left), value) and admits(json.loads(right), value)
            assert both == (arguments in admitted), (name, arguments)
            assert outcome is None or admits(json.loads(outcome), value) == both, (name, arguments)
        conjunctions.append(
            {"case": name, "left": left, "right": right, "outcome": outcome, "admitted": admitted, "refused": refused}
        )
    write(
        "constraints.json",
        "L2 constraints and arguments, both as JSON texts: what is admitted and refused; malformed constraints; "
        "conjunctions of two hops, `outcome` null where nothing satisfies both.",
        well_formed=well_formed,
        malformed=[{"case": name, "constraints": text} for name, text in MALFORMED_CONSTRAINTS],
        conjunctions=conjunctions,
    )


if __name__ == "__main__":
    strict_json()
    jcs()
    calls()
    tools()
    manifests()
    reads()
    constraints()
    write(
        "dpop.json",
        "DPoP proofs: the value of the `DPoP` header, what it must be for, and the RFC 9449 section 4.3 check that "
        "refuses it, or `verified`. Nonce and replay are not looked at.",
        cases=DPOP,
    )
    write(
        "tokens.json",
        "Tool-call tokens against `jwks` and what is expected; `refused` says why, null where accepted.",
        jwks=JWKS,
        cases=TOKENS,
    )
