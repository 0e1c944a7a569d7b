/** The shared vectors of `conformance/vectors`, which Rust and Python run too. */

import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { DecryptionKey } from "../src/aws/sealed.js";
import { canonicalize } from "../src/call/canonical.js";
import { checkConstraints, readConstraints } from "../src/call/constraints.js";
import { callDigest, manifestDigest, promptDigest, resourceDigest, toolDigest } from "../src/call/digest.js";
import { parseProof, verifyProof } from "../src/call/dpop.js";
import { JsonError, type JsonObject, parseObject, parseValue } from "../src/call/json.js";
import { JwsError } from "../src/call/jws.js";
import { KeySet } from "../src/call/keys.js";
import { ACTIONS, Offers, readBits } from "../src/call/offers.js";
import { find, isEntry, names } from "../src/call/resource.js";
import { verifyToken } from "../src/call/token.js";
import { ProtocolError } from "../src/client/errors.js";

type Vectors = any;

function read(name: string): Vectors {
  return JSON.parse(readFileSync(new URL(`../../../../conformance/vectors/${name}`, import.meta.url), "utf8"));
}

/** What `run` refuses with, as the vectors name it; `null` where it accepts. */
function problemOf(run: () => unknown): string | null {
  try {
    run();
    return null;
  } catch (error) {
    if (error instanceof JsonError) return error.problem;
    throw error;
  }
}

test("strict JSON", () => {
  const { cases } = read("strict-json.json");
  assert.ok(cases.length > 80);
  for (const { name, text, base64, refused } of cases) {
    const bytes = text === undefined ? Buffer.from(base64, "base64") : Buffer.from(text, "utf8");
    assert.equal(problemOf(() => parseObject(bytes)), refused, name);
  }
});

test("JCS", () => {
  for (const { name, text, canonical } of read("jcs.json").cases) {
    assert.equal(canonicalize(parseObject(text)), canonical, name);
    assert.equal(canonicalize(parseObject(canonical)), canonical, name);
  }
});

test("call digests", async () => {
  const seen = new Map<string, string>();
  // An envelope, as a body is: the parts are deeper in it than they are themselves.
  const part = (text: string | undefined) =>
    text === undefined ? undefined : (parseValue(`[${text}]`, 64) as JsonObject[])[0];
  for (const each of read("call-digest.json").cases) {
    let digest: string;
    try {
      digest = await callDigest({
        method: each.method,
        name: each.name,
        arguments: part(each.arguments) ?? {},
        inputResponses: part(each.input_responses),
        requestState: part(each.request_state),
      });
    } catch (error) {
      assert.equal((error as JsonError).problem, each.refused, each.case);
      continue;
    }
    assert.equal(digest, each.digest, each.case);
    assert.equal(seen.get(digest), each.same_as, each.case);
    if (each.same_as === undefined) seen.set(digest, each.case);
  }
  assert.ok(seen.size > 20);
});

test("tool and manifest digests", async () => {
  for (const each of read("tool-digest.json").cases) {
    assert.equal(await toolDigest(parseObject(each.definition)), each.digest, each.case);
  }
  for (const each of read("manifest-digest.json").cases) {
    assert.equal(await manifestDigest(each.id, each.version, each.tools, each.prompts, each.resources), each.digest, each.case);
  }
});

test("prompts, resources, and what lists show", async () => {
  const { prompts, resources, offers, well_formed, entries, decisions } = read("reads.json");
  for (const each of prompts) {
    assert.equal(await promptDigest(parseObject(each.definition)), each.digest, each.case);
  }
  for (const each of resources) {
    assert.equal(await resourceDigest(parseObject(each.definition)), each.digest, each.case);
  }
  for (const each of offers) {
    const kinds = [each.tools, each.prompts, each.resources];
    const counted = await Offers.of(each.tools, each.prompts, each.resources);
    const others = await Offers.of([...each.tools, "one more"]);
    const bits = readBits(each.shown.bits);
    assert.ok(bits !== undefined && counted.digest === each.shown.of, each.case);
    const shown = { of: each.shown.of, bits };
    for (const [at, action] of ACTIONS.entries()) {
      for (const name of kinds[at]) {
        assert.equal(counted.isShown(shown, action, name), each.visible.includes(name), `${each.case}: ${name}`);
        assert.equal(counted.isShown(undefined, action, name), false);
        assert.equal(others.isShown(shown, action, name), false);
      }
    }
  }
  for (const entry of well_formed.entries) assert.ok(isEntry(entry), entry);
  for (const other of well_formed.others) assert.ok(!isEntry(other), other);
  for (const { entry, named, others } of entries) {
    for (const uri of named) assert.ok(names(entry, uri) && find(new Set([entry]), uri) === entry, uri);
    for (const uri of others) assert.ok(!names(entry, uri) && find(new Set([entry]), uri) === undefined, uri);
  }
  for (const { case: name, entries: registered, decided } of decisions) {
    for (const { uri, entry } of decided) {
      assert.equal(find(new Set(registered), uri) ?? null, entry, `${name}: ${uri}`);
    }
  }
});

test("constraints", () => {
  const { well_formed, malformed, conjunctions } = read("constraints.json");
  const admits = (constraints: string, args: string) => {
    try {
      checkConstraints(readConstraints(parseObject(constraints)), parseObject(args));
      return true;
    } catch {
      return false;
    }
  };
  for (const each of well_formed) {
    for (const args of each.admitted) assert.ok(admits(each.constraints, args), `${each.case}: ${args}`);
    for (const args of each.refused) assert.ok(!admits(each.constraints, args), `${each.case}: ${args}`);
    readConstraints(parseObject(each.constraints));
  }
  for (const each of malformed) {
    assert.throws(() => readConstraints(parseValue(each.constraints, 32)), each.case);
  }
  // A conjunction admits exactly what both of its sides admit.
  for (const each of conjunctions) {
    const both = (args: string) => admits(each.left, args) && admits(each.right, args);
    for (const args of each.admitted) assert.ok(both(args), `${each.case}: ${args}`);
    for (const args of each.refused) assert.ok(!both(args), `${each.case}: ${args}`);
  }
});

test("DPoP proofs", async () => {
  const tags = new Set<string>();
  for (const each of read("dpop.json").cases) {
    const { expected } = each;
    try {
      const verified = await verifyProof(parseProof(each.proof), {
        htm: expected.htm,
        htu: expected.htu,
        accessToken: expected.access_token,
        jkt: expected.jkt,
        nowSeconds: expected.now_seconds,
        windowSeconds: expected.window_seconds,
      });
      assert.deepEqual(verified, each.verified, each.case);
      tags.add(verified.tag);
    } catch (error) {
      if (!(error instanceof JwsError)) throw error;
      assert.ok(each.refused_by_check !== undefined, `${each.case}: ${error.message}`);
      const plausible = checksOf(error);
      assert.ok(plausible.includes(each.refused_by_check), `${each.case}: ${error.message}, not ${each.refused_by_check}`);
    }
  }
  assert.ok(tags.size >= 4);
});

/** The checks of RFC 9449 §4.3 that may have refused so. */
function checksOf({ problem, member, message }: JwsError): number[] {
  switch (problem) {
    case "claim":
      if (message.endsWith("another method")) return [8];
      if (message.endsWith("another URL")) return [9];
      if (message.endsWith("outside the window")) return [11];
      return member === "ath" ? [12] : [3];
    case "signature":
      return [6];
    case "algorithm":
      return [5];
    case "typ":
      return [4];
    case "header":
      return member === "jwk" ? [3] : [2];
    case "key":
      return [5, 6, 7, 12];
    default:
      return [2];
  }
}

test("tool-call tokens", async () => {
  const { jwks, cases } = read("tokens.json");
  const keys = await KeySet.fromJwks(jwks);
  for (const { case: name, token, expected, refused } of cases) {
    const found = await verifyToken(token, keys, {
      issuer: expected.issuer,
      audience: expected.audience ?? undefined,
      nowSeconds: expected.now_seconds,
      leewaySeconds: expected.leeway_seconds,
    }).then(
      () => null,
      (error: unknown) => (error instanceof JwsError ? codeOf(error) : Promise.reject(error)),
    );
    // An algorithm that no key of the set is for is seen as such only when the key is looked for.
    assert.ok(found === (refused ?? null) || (found === "kid" && refused === "alg"), `${name}: ${found}, not ${refused}`);
  }
});

test("sealed answers", async () => {
  const { keys, content, opened, refused } = read("sealed.json");
  const rsa = createPrivateKey({ key: Buffer.from(keys.rsa_pkcs8, "base64"), format: "der", type: "pkcs8" });
  const byAlgorithm = new Map([
    ["ECDH-ES+A256KW", await DecryptionKey.fromJwk(keys.ec)],
    ["RSA-OAEP-256", await DecryptionKey.fromJwk({ ...rsa.export({ format: "jwk" }), kid: keys.rsa_kid, use: "enc" })],
  ]);
  assert.equal(Object.keys(opened).length, 5);
  for (const [name, sealed] of Object.entries<string>(opened)) {
    for (const [algorithm, key] of byAlgorithm) {
      const opening = key.open(Buffer.from(sealed)).then((text) => JSON.parse(Buffer.from(text).toString()));
      if (name.split(",")[0] === algorithm) assert.deepEqual(await opening, content, name);
      else await assert.rejects(opening, ProtocolError, name);
    }
  }
  for (const [name, sealed] of Object.entries<string>(refused)) {
    for (const key of byAlgorithm.values()) await assert.rejects(key.open(Buffer.from(sealed)), ProtocolError, name);
  }
});

/** How the vectors name a refusal of a token. */
function codeOf({ problem, member }: JwsError): string {
  switch (problem) {
    case "malformed":
      return member === "kid" ? "kid" : "form";
    case "too long":
      return "form";
    case "algorithm":
      return "alg";
    case "unknown key":
      return "kid";
    case "claim":
      return ["iss", "aud", "exp", "nbf", "iat"].includes(member ?? "") ? (member ?? "") : "shape";
    default:
      return problem;
  }
}
