/** What is remembered, and how much of it: once-only sets, counts, sessions. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyToken } from "../../src/call/token.js";
import { KeySet } from "../../src/call/keys.js";
import type { ToolCallClaims } from "../../src/call/claims.js";
import { encodeBase64url, sha256 } from "../../src/call/bytes.js";
import { OnceSet } from "../../src/guard/once.js";
import { Uses } from "../../src/guard/uses.js";
import { Session, Sessions } from "../../src/serve/sessions.js";
import { call, Fixture, ISSUER, l1, l2, type Loose, refusalOf, RESOURCE } from "./fixture.js";

test("one owner leaves room for all others", () => {
  const once = new OnceSet(60_000, 1_000);
  let serial = 0;
  const takeAll = (owner: string, uptimeMs: number) => {
    let taken = 0;
    while (once.take(owner, String((serial += 1)), uptimeMs) === "first") taken += 1;
    return taken;
  };
  assert.equal(takeAll("greedy", 0), 500, "alone: half");
  assert.equal(takeAll("greedy", 0), 0);
  assert.equal(takeAll("second", 0), 250);
  assert.equal(takeAll("third", 0), 125);
  assert.equal(once.take("small", "x", 0), "first");
  assert.equal(once.take("greedy", "x", 0), "seen", "what is seen is seen by all");
  assert.equal(takeAll("greedy", 60_000), 500, "a new generation is shared anew");
});

test("a client that sends very many proofs or tokens leaves room for the others", async () => {
  const send = async (f: Fixture, detail: Loose, body: unknown, client: string) => {
    const token = await f.sign({ ...f.claims(detail), client_id: client });
    return f.send(await f.request(token, body)).then(() => 200, async (error: unknown) => (await refusalOf(Promise.reject(error))).status);
  };
  const proofs = await Fixture.create({ proofCapacity: 4 });
  const look = async (client: string) => send(proofs, await l1("lookup"), call("lookup", {}), client);
  assert.deepEqual([await look("greedy"), await look("greedy"), await look("greedy")], [200, 200, 503]);
  assert.deepEqual([await look("other"), await look("greedy")], [200, 503]);

  const counted = await Fixture.create({ countedTokens: 4 });
  const detail = await l2("transfer", { "/note": { enum: ["x"] } }, 1);
  const transfer = (client: string) => send(counted, detail, call("transfer", { note: "x" }), client);
  assert.deepEqual([await transfer("greedy"), await transfer("greedy"), await transfer("greedy")], [200, 200, 503]);
  assert.deepEqual([await transfer("other"), await transfer("other")], [200, 503]);
  counted.pass(100);
  counted.guard.hearRevocations();
  assert.equal(await transfer("greedy"), 200);
});

test("counts stay until their tokens cannot pass", () => {
  const uses = new Uses(4);
  const take = (jti: string, maxUses: number, uptimeMs: number) =>
    uses.take({ jti, owner: "greedy", maxUses, untilMs: uptimeMs + 60 }, uptimeMs);
  take("a", 2, 0);
  take("b", 2, 0);
  for (const uptimeMs of [0, 60]) assert.throws(() => take("c", 1, uptimeMs), /too many/);
  take("a", 2, 60);
  assert.throws(() => take("a", 2, 60), /used_up/);
  take("c", 1, 61);
  assert.throws(() => take("d", 0, 61), /used_up/);
});

async function claimsOf(f: Fixture, changes: Loose = {}): Promise<ToolCallClaims> {
  const keys = await KeySet.fromJwks({ keys: [{ ...f.broker.publicJwk, kid: f.broker.kid }] } as never);
  const token = await f.sign({ ...f.claims(await l1("lookup")), ...changes });
  return verifyToken(token, keys, { issuer: ISSUER, audience: RESOURCE, nowSeconds: f.now, leewaySeconds: 5 });
}

test("sessions end when they are idle, and are shared out among persons", async () => {
  const f = await Fixture.create();
  const claims = await claimsOf(f);
  let nowMs = 0;
  const sessions = new Sessions(() => nowMs);
  for (let id = 0; id < 64; id += 1) sessions.begin(String(id), claims);
  const inUse = sessions.find("0", claims);
  inUse.underWay = 1;
  assert.throws(() => sessions.checkRoom(claims), /no_room/);
  nowMs = 1_800_000;
  sessions.find("1", claims);
  nowMs += 1;
  sessions.checkRoom(claims);
  assert.equal(sessions.find("0", claims), inUse);
  assert.equal(sessions.find("1", claims).id, "1");
  assert.throws(() => sessions.find("2", claims), /session/);
  nowMs += 1_800_001;
  assert.throws(() => sessions.find("1", claims), /idle/);

  const others = new Sessions(() => nowMs);
  let begun = 0;
  for (let key = 0; key < 300; key += 1) {
    const thumbprint = encodeBase64url(await sha256(String(key)));
    try {
      others.begin(String(key), { ...claims, cnf: { kind: "jkt", thumbprint } });
      begun += 1;
    } catch {
      break;
    }
  }
  assert.equal(begun, 256, "new keys give a person no more");
  others.begin("bob", await claimsOf(f, { sub: "user:acme:x:bob" }));
});

test("a call that its token fixes is not forgotten before its response", () => {
  const session = new Session("s", "owner", "person", 0);
  session.noteRequested("fixed", "tools/call", true);
  for (let id = 0; id < 300; id += 1) session.noteRequested(id, "ping", false);
  assert.equal(session.takeRequested(0), undefined, "what is not fixed makes room");
  assert.ok(!session.noteAsked("q"), "the server asks nothing meanwhile");
  assert.throws(() => session.noteRequested("fixed", "tools/call", true), { kind: "id_in_use" });
  assert.equal(session.takeRequested("fixed"), "tools/call");
  assert.ok(session.noteAsked("q"));
});

test("a session full of fixed calls takes no other request", () => {
  const session = new Session("s", "owner", "person", 0);
  for (let id = 0; id < 256; id += 1) session.noteRequested(id, "tools/call", true);
  for (const isFixed of [true, false]) {
    const note = () => session.noteRequested("more", "tools/call", isFixed);
    assert.throws(note, { kind: "limited", retryAfterSeconds: 1 });
  }
  assert.equal(session.takeRequested(7), "tools/call");
  session.noteRequested("more", "ping", false);
  assert.equal(session.takeRequested("more"), "ping");
  for (let id = 0; id < 256; id += 1) assert.equal(session.takeRequested(id), id === 7 ? undefined : "tools/call");
});

test("what a session remembers is bounded", () => {
  const session = new Session("s", "owner", "person", 0);
  for (let id = 0; id < 300; id += 1) session.noteRequested(id, "ping", false);
  assert.equal(session.takeRequested(0), undefined, "the oldest is forgotten");
  assert.equal(session.takeRequested(299), "ping");
  for (let id = 0; id < 64; id += 1) assert.ok(session.noteAsked(id));
  assert.ok(!session.noteAsked(64));
  session.takeAsked(0);
  assert.ok(session.noteAsked(64));
  for (let cursor = 0; cursor < 1_100; cursor += 1) session.noteCursor(String(cursor));
  assert.ok(session.knowsCursor("1099") && !session.knowsCursor("0"));
});
