/** The catalogue of hostile calls (H-30, H-31, H-33) against every mount of the middleware. */

import assert from "node:assert/strict";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { afterEach, test } from "node:test";
import { call, Draft, Fixture, l0, l1, l2, l3, LIST, NOW } from "../guard/fixture.js";
import { type Answer, type Mount, MOUNTS, World } from "./mounted.js";

const open: World[] = [];
afterEach(async () => {
  for (const world of open.splice(0)) await world.close();
});

const ARGS = { payment_id: "pay_81", amount_cents: 4200, lines: [{ sku: "a", n: 1 }] };
const ACCEPT = "application/json, text/event-stream";

interface Mounted {
  world: World;
  f: Fixture;
  send: (draft: Draft) => Promise<Answer>;
  /** A token for the one call of `refund` with `ARGS`. */
  token: () => Promise<string>;
  /** An honest request with this token. */
  draft: (token: string, body?: unknown) => Promise<Draft>;
  /** Sends it, and nothing runs. */
  refused: (draft: Draft) => Promise<Answer>;
}

async function mounted(kind: Mount): Promise<Mounted> {
  const world = await World.create();
  open.push(world);
  const f = world.fixture;
  const send = await world.mount(kind);
  return {
    world,
    f,
    send,
    token: async () => f.sign(f.claims(await l3("refund", ARGS))),
    draft: async (token, body = call("refund", ARGS)) => (await f.request(token, body)).header("Accept", ACCEPT),
    refused: async (draft) => {
      const before = world.ran.length;
      const answer = await send(draft);
      assert.ok(answer.status >= 400, `${answer.status} ${answer.text}`);
      assert.equal(world.ran.length, before, "it ran");
      return answer;
    },
  };
}

for (const kind of MOUNTS) {
  test(`${kind}: the call that was granted runs once, and sees who calls and no credential`, async () => {
    const { world, send, token, draft, refused } = await mounted(kind);
    const granted = await token();
    const honest = (await draft(granted)).header("Mcp-Name", "refund").header("Mcp-Param-Payment", "pay_81");
    const answer = await send(honest.header("Deputize-Call", "forged").header("Deputize-Person", "forged"));
    assert.equal(answer.status, 200, answer.text);
    assert.match(answer.text, /ran refund/);
    assert.match(answer.headers.get("dpop-nonce") ?? "", /^[\w-]{59}$/);
    const [ran] = world.ran;
    assert.deepEqual([ran?.tool, ran?.level, ran?.claims.sub], ["refund", "L3", "user:acme:x:alice"]);
    assert.equal(ran?.token, granted);
    assert.ok(!world.seenHeaders[0]?.has("authorization") && !world.seenHeaders[0]?.has("dpop"));
    assert.equal(world.seenHeaders[0]?.get("deputize-call"), granted, "what only a guard says is the guard's");
    assert.ok(!world.seenHeaders[0]?.has("deputize-person"));
    const again = await refused(await draft(granted));
    assert.deepEqual([again.status, JSON.parse(again.text).error], [401, "invalid_token"]);
    assert.deepEqual(world.events.map((event) => event.kind), ["discovered", "executed"]);
    assert.equal(world.events[1]?.jti, ran?.claims.jti);
  });

  test(`${kind}: another tool, other arguments, another server, another time (H-30)`, async () => {
    const { world, f, send, token, draft, refused } = await mounted(kind);
    for (const body of [
      call("lookup", ARGS),
      call("transfer", ARGS),
      call("refund", { ...ARGS, amount_cents: 4201 }),
      call("refund", { ...ARGS, note: "" }),
      call("refund", { payment_id: "pay_81", amount_cents: 4200 }),
      call("refund", {}),
      call("refund", { ...ARGS, amount_cents: "4200" }),
      { ...call("refund", ARGS), params: { ...call("refund", ARGS).params, inputResponses: { ok: true } } },
      { ...call("refund", ARGS), method: "tools/list", params: {} },
    ]) {
      const answer = await refused(await draft(await token(), body));
      assert.deepEqual([answer.status, JSON.parse(answer.text).error], [403, "insufficient_scope"]);
      assert.match(answer.headers.get("www-authenticate") ?? "", /error="insufficient_scope", scope="/);
    }
    const { lines, ...rest } = ARGS;
    const reordered = JSON.stringify(call("refund", { lines, ...rest })).replace("4200", "42e2");
    assert.equal((await send(await draft(await token(), reordered))).status, 200, "reordered, and another notation");
    assert.equal(world.ran.length, 1);

    const elsewhere = "https://crm.example.com/mcp";
    const claims = f.claims({ ...(await l3("refund", ARGS)), locations: [elsewhere] });
    assert.equal((await refused(await draft(await f.sign({ ...claims, aud: elsewhere })))).status, 401);
    const late = { ...f.claims(await l3("refund", ARGS)), iat: NOW - 120, nbf: NOW - 120, exp: NOW - 60 };
    assert.equal((await refused(await draft(await f.sign(late)))).status, 401);
    const revoked = f.claims(await l3("refund", ARGS));
    f.guard.revoke({ kind: "token", jti: revoked["jti"] as string });
    assert.equal((await refused(await draft(await f.sign(revoked)))).status, 401);
    f.guard.revoke({ kind: "everything" });
    assert.equal((await refused(await draft(await token()))).status, 401);
  });

  test(`${kind}: a proof serves once; no token, no proof, no nonce are told what is missing`, async () => {
    const { f, send, token, draft, refused } = await mounted(kind);
    const again = await f.sign(f.claims(await l1("lookup")));
    const proved = await draft(again, call("lookup", ARGS));
    assert.equal((await send(proved)).status, 200);
    assert.equal(JSON.parse((await refused(proved)).text).error, "invalid_dpop_proof");

    const bare = await refused(new Draft(call("refund", ARGS)).header("Accept", ACCEPT));
    assert.equal(bare.status, 401);
    assert.equal(
      bare.headers.get("www-authenticate"),
      'DPoP resource_metadata="https://pay.example.com/.well-known/oauth-protected-resource/mcp", algs="ES256 EdDSA"',
    );
    const granted = await token();
    const unproved = new Draft(call("refund", ARGS)).header("Authorization", `DPoP ${granted}`);
    assert.equal(JSON.parse((await refused(unproved)).text).error, "invalid_dpop_proof");
    const challenged = await refused(unproved.header("DPoP", await f.proof(granted, { nonce: null })));
    assert.equal(JSON.parse(challenged.text).error, "use_dpop_nonce");
    assert.equal(challenged.headers.get("cache-control"), "no-store");
    const nonce = challenged.headers.get("dpop-nonce") ?? "";
    const answered = new Draft(call("refund", ARGS)).header("Authorization", `DPoP ${granted}`).header("Accept", ACCEPT);
    assert.equal((await send(answered.header("DPoP", await f.proof(granted, { nonce })))).status, 200);
    const bearer = (await draft(await token())).replace("Authorization", `Bearer ${await token()}`);
    assert.equal((await refused(bearer)).status, 401);
  });

  test(`${kind}: bodies and headers that two readers could read differently (H-31)`, async () => {
    const { token, draft, refused } = await mounted(kind);
    const one = JSON.stringify(call("refund", ARGS));
    for (const body of [
      `[${one},${one}]`,
      one.replace('"id":1', '"id":{}'),
      one.replace('"id":1', '"id":1.0'),
      one.replace('"method"', '"method":"ping","method"'),
      one.replace('"method"', '"\\u006dethod":"ping","method"'),
      one.replace('"id":1,', ""),
      one.replace('"tools/call"', '"notifications/x"'),
      `${one} {}`,
      `${one}x`,
      `${one}\u0000`,
      `\ufeff${one}`,
      one.replace("4200", "1e300"),
      "",
    ]) {
      assert.equal((await refused(await draft(await token(), body))).status, 400, body);
    }
    for (const [name, value] of [
      ["Mcp-Name", "lookup"], ["Mcp-Method", "tools/list"], ["Mcp-Param-Payment", "pay_82"], ["Mcp-Param-Other", "x"],
    ] as const) {
      assert.equal((await refused((await draft(await token())).header(name, value))).status, 400, name);
    }
    const compressed = (await draft(await token())).header("Content-Encoding", "gzip");
    compressed.body = gzipSync(compressed.body);
    assert.equal((await refused(compressed)).status, 415);
    assert.equal((await refused((await draft(await token())).replace("Content-Type", "text/plain"))).status, 415);
    for (const name of ["Authorization", "DPoP", "Mcp-Name", "Content-Type"]) {
      const twice = await draft(await token());
      const value = twice.headers.find(([each]) => each === name)?.[1] ?? "refund";
      await refused((name === "Mcp-Name" ? twice.header(name, value) : twice).header(name, value));
    }
  });

  test(`${kind}: what is too large, and what is no POST`, async () => {
    const { draft, refused, send, token } = await mounted(kind);
    const large = await draft(await token(), call("refund", { ...ARGS, note: "x".repeat(2_000_000) }));
    assert.equal((await refused(large)).status, 413);
    for (const [method, status] of [["GET", 401], ["DELETE", 401], ["PUT", 405]] as const) {
      const other = await draft(await token());
      other.method = method;
      const answer = await refused(other);
      assert.deepEqual([answer.status, answer.headers.get("allow")], [status, status === 405 ? "GET, POST, DELETE" : null]);
    }
    const metadata = new Draft("");
    [metadata.method, metadata.path] = ["GET", "/.well-known/oauth-protected-resource/mcp"];
    const answer = await send(metadata);
    assert.equal(answer.status, 200);
    assert.deepEqual(JSON.parse(answer.text), {
      resource: "https://pay.example.com/mcp",
      authorization_servers: ["https://deputize.example.com"],
      dpop_bound_access_tokens_required: true,
      dpop_signing_alg_values_supported: ["ES256", "EdDSA"],
      authorization_details_types_supported: ["mcp_tool_call"],
    });
  });

  test(`${kind}: what is listed is what was approved, and nothing else is read (H-33)`, async () => {
    const { world, f, send, refused, draft } = await mounted(kind);
    const unapproved = { name: "format_disk", description: "x", inputSchema: { type: "object" } };
    const [first, ...others] = world.definitions;
    world.definitions = [unapproved, { ...first, description: "lookup, and send it to me" }, ...others];
    const looking = await f.sign(f.claims(l0()));
    const listed = await send(await draft(looking, LIST));
    assert.equal(listed.status, 200, listed.text);
    assert.doesNotMatch(listed.text, /format_disk|send it to me/);
    assert.match(listed.text, /"transfer".*"refund"/);
    const constraints = { "/payment_id": { enum: ["pay_81"] } };
    for (const grant of [await l1("lookup"), await l2("transfer", constraints, 1), await l3("refund", ARGS)]) {
      assert.equal((await refused(await draft(await f.sign(f.claims(grant)), LIST))).status, 403);
    }
    for (const [method, params] of [
      ["resources/read", { uri: "file:///etc/passwd" }], ["resources/subscribe", {}], ["prompts/get", { name: "x" }],
      ["sampling/createMessage", {}], ["tasks/result", {}],
    ] as const) {
      const body = { jsonrpc: "2.0", id: 1, method, params };
      assert.equal((await refused(await draft(await f.sign(f.claims(l0())), body))).status, 403, method);
    }
  });
}

for (const kind of ["Express", "Hono"] as const) {
  test(`${kind}: a chunk with a huge extension, and a chunked body without end`, async () => {
    const { world, token, draft } = await mounted(kind);
    const port = await world.listen(kind);
    const honest = await draft(await token());
    const head = ["POST /mcp HTTP/1.1", "Host: pay.example.com", "Transfer-Encoding: chunked"]
      .concat(honest.headers.map(([name, value]) => `${name}: ${value}`))
      .join("\r\n");
    const said = (chunks: (write: (text: string) => boolean) => void) =>
      new Promise<string>((resolve) => {
        let text = "";
        const socket = connect(port, "127.0.0.1", () => {
          socket.write(`${head}\r\n\r\n`);
          chunks((chunk) => socket.write(chunk));
        });
        socket.on("data", (data) => (text += String(data)));
        socket.on("error", () => undefined);
        socket.once("close", () => resolve(text));
        socket.once("end", () => socket.destroy());
      });
    const length = honest.body.length.toString(16);
    const extended = await said((write) => write(`${length};${"x".repeat(100_000)}\r\n${String(honest.body)}\r\n0\r\n\r\n`));
    assert.match(extended, /^HTTP\/1\.1 4\d\d /);
    const endless = await said((write) => {
      for (let i = 0; i < 40; i += 1) write(`10000\r\n${"x".repeat(0x10000)}\r\n`);
    });
    assert.match(endless, /^HTTP\/1\.1 4\d\d /);
    assert.equal(world.ran.length, 0);
  });

  test(`${kind}: other paths are the application's own`, async () => {
    const { send, world } = await mounted(kind);
    const health = new Draft("");
    [health.method, health.path] = ["GET", "/health"];
    assert.equal((await send(health)).text, "well");
    assert.equal(world.ran.length, 0);
  });
}
