/** Two calls in one server at once: each has its own AWS credentials, on every mount. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import { createMcpHandler, Server } from "@modelcontextprotocol/server";
import { operations } from "../../examples/aws-server.js";
import { callDigest, type Clock, linkGuard, type McpHandler, registryRecord, verifiedCall } from "../../src/server.js";
import { call, DEFINITIONS, type Fixture, granted, l1, l3, type Loose, RESOURCE, verifiedCall as verified } from "../guard/fixture.js";
import { FakeBroker } from "../link/broker.js";
import { MOUNTS, World } from "../serve/mounted.js";
import { accessKeyOf, Aws, AwsBroker } from "./broker.js";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

/** A server whose tool says with which access key AWS saw it, once all calls have come as far as that. */
function handler(aws: Aws, together: () => Promise<void>): McpHandler {
  return createMcpHandler(() => {
    const server = new Server({ name: "pay", version: "1.0.0" }, { capabilities: { tools: {} } });
    server.setRequestHandler("tools/list", () => ({ tools: DEFINITIONS as never[] }));
    server.setRequestHandler("tools/call", async (_, context) => {
      const credentials = verifiedCall(context).awsCredentials();
      await together();
      const sts = new STSClient({ region: "eu-central-1", endpoint: aws.endpoint, credentials, maxAttempts: 1 });
      const { Arn = "" } = await sts.send(new GetCallerIdentityCommand({}));
      return { content: [{ type: "text", text: Arn }] };
    });
    return server;
  });
}

for (const mount of MOUNTS) {
  test(`calls at once have their own each: ${mount}`, async () => {
    const [world, aws] = [await World.create(), await Aws.start()];
    ends.push(() => world.close(), () => aws.close());
    const { fixture: f } = world;
    const broker = await AwsBroker.create(clockOf(f));
    const client = await broker.client();
    f.outside.awsCredentials = (request) => client.awsCredentials(request);
    const callers = ["alice1", "bob1", "carol1"];
    const send = await world.mount(mount, handler(aws, meeting(callers.length)));
    const drafts = await Promise.all(
      callers.map(async (jti) => {
        const args = { payment_id: jti };
        const token = await f.sign({ ...f.claims(await l3("refund", args)), jti, sub: `user:acme:x:${jti}` });
        const draft = await f.request(token, call("refund", args));
        return draft.header("Accept", "application/json, text/event-stream");
      }),
    );
    const answers = await Promise.all(drafts.map(send));
    answers.forEach(({ status, text }, at) => {
      assert.equal(status, 200, text);
      assert.match(text, new RegExp(`r/${accessKeyOf(callers[at] ?? "")}"`));
    });
    const own = callers.map((jti) => `${accessKeyOf(jti)},session-of-${jti}==`);
    assert.deepEqual(new Set(aws.signedBy.map(String)), new Set(own), "never one's key with another's token");
    assert.equal(broker.asked.length, callers.length);
  });
}

test("the example restarts the instance in its arguments", async (context) => {
  const [world, aws] = [await World.create(), await Aws.start()];
  ends.push(() => world.close(), () => aws.close());
  process.env["AWS_ENDPOINT_URL"] = aws.endpoint;
  context.after(() => delete process.env["AWS_ENDPOINT_URL"]);
  const { fixture: f } = world;
  const broker = await AwsBroker.create(clockOf(f));
  const client = await broker.client();
  f.outside.awsCredentials = (request) => client.awsCredentials(request);
  const listed = await listedBy(operations);
  const { definition, tool_digest: digest } = listed;
  f.guard.install(await f.snapshot({ version: 2, tools: [{ definition, tool_digest: digest, least_level: "L3", tier: "low" }] }));
  const send = await world.mount("web-standard", operations, { discoveryMs: 0 });
  const restart = async (jti: string) => {
    const args = { instance_id: "i-0123456789abcdef0" };
    const bound = { call_digest: await callDigest({ method: "tools/call", name: "restart_instance", arguments: args }), max_uses: 1 };
    const detail = { ...granted(), actions: ["tools/call"], identifier: "restart_instance", tool_digest: digest, ...bound };
    const token = await f.sign({ ...f.claims(detail), jti });
    const draft = await f.request(token, call("restart_instance", args));
    return (await send(draft.header("Accept", "application/json, text/event-stream"))).text;
  };
  assert.match(await restart("alice1"), /i-0123456789abcdef0 restarts for user:acme:x:alice/);
  assert.deepEqual(aws.signedBy, [[accessKeyOf("alice1"), "session-of-alice1=="]]);
  assert.match(aws.bodies[0] ?? "", /InstanceId\.1=i-0123456789abcdef0/);
  broker.answer = () => Response.json({ error: "not_found", error_description: "nothing" }, { status: 404 });
  assert.match(await restart("bob1"), /"isError":true/);
  assert.equal(aws.signedBy.length, 1);
});

test("a linked guard asks as its own client", async () => {
  const fake = await FakeBroker.create();
  const asked: string[] = [];
  const link = await linkGuard(
    fake.settings({
      fetch: (url, init) => {
        if (!String(url).endsWith("/aws/credentials")) return fake.fetch(url, init);
        asked.push(new URLSearchParams(String(init?.body)).get("client_id") ?? "");
        return Promise.resolve(Response.json({ error: "not_found", error_description: "nothing" }, { status: 404 }));
      },
    }),
  );
  ends.push(() => link.close());
  fake.fixture.guard = link.guard;
  await fake.fixture.observe(DEFINITIONS);
  const running = await verified(fake.fixture.withGrant(await l1("lookup"), call("lookup", {})));
  await assert.rejects(running.awsCredentials()(), /have `aws` configured/);
  assert.deepEqual(asked, ["pay-guard"]);
});

function clockOf(f: Fixture): Clock {
  return { nowMs: () => f.now * 1000, uptimeMs: () => f.uptimeMs, uniqueId: () => crypto.randomUUID() };
}

/** The tool of a server as its record pins it. */
async function listedBy(server: McpHandler): Promise<{ definition: Loose; tool_digest: string }> {
  const about = { id: "x", resource: RESOURCE, version: "1.0.0", owner: "o", purpose: "p", environment: "development", dataClass: "internal" } as const;
  const tools = { restart_instance: { tier: "medium", effect: "write" } } as const;
  const record = await registryRecord(server, { ...about, tools });
  const [tool] = record["tools"] as [{ definition: Loose; tool_digest: string }];
  return tool;
}

/** Resolves for all when so many have come. */
function meeting(size: number): () => Promise<void> {
  let [here, open]: [number, () => void] = [0, () => undefined];
  const met = new Promise<void>((resolve) => (open = resolve));
  return () => {
    here += 1;
    if (here === size) open();
    return met;
  };
}
