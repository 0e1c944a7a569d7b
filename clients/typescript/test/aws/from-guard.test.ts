/** Behind the guard proxy: the credentials of a call from the address that came with it, and from nowhere else. */

import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import {
  AwsCredentialsExpiredError, ConfigurationError, ExchangeError, ProtocolError, RetryLaterError, UnreachableError,
} from "../../src/client/errors.js";
import { awsCredentialsFromGuard } from "../../src/server.js";
import type { Loose } from "../guard/fixture.js";
import { Aws, ShiftedClock } from "./broker.js";

const SECRET = "a-secret-of-this-call";
const PATH = "/aws/an-address-of-this-call";

let guard: Server;
let url: string;
let asked: [path: string, secret: string | undefined][];
let clock: ShiftedClock;
let status: number;
let body: () => string;

before(async () => {
  guard = createServer((request, response) => {
    asked.push([request.url ?? "", request.headers.authorization]);
    response.writeHead(status, { location: `${url}/aws/another-address-of-this-call`, "retry-after": "3" });
    response.end(body());
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => guard.once("listening", resolve));
  url = `http://127.0.0.1:${(guard.address() as AddressInfo).port}`;
});
beforeEach(() => {
  [asked, clock, status, body] = [[], new ShiftedClock(), 200, () => content()];
});
after(() => new Promise((resolve) => guard.close(resolve)));

function content(changes: Loose = {}): string {
  const ends = new Date((Math.floor(clock.nowMs() / 1000) + 300) * 1000).toISOString().replace(".000Z", "Z");
  const said = { AccessKeyId: "ASIAGUARD", SecretAccessKey: "secret/of+guard", Token: "session-of-guard==", Expiration: ends };
  return JSON.stringify({ ...said, AccountId: "111122223333", ...changes });
}

function headers(changes: Record<string, string | string[] | undefined> = {}): Record<string, string | string[] | undefined> {
  return { "deputize-aws-credentials-uri": url + PATH, "deputize-aws-authorization": SECRET, host: "x", ...changes };
}

test("the credentials of a call are asked for once", async (context) => {
  for (const name of ["HTTP_PROXY", "http_proxy", "ALL_PROXY"]) {
    process.env[name] = "http://127.0.0.1:1";
    context.after(() => delete process.env[name]);
  }
  const aws = await Aws.start();
  context.after(() => aws.close());
  const credentials = awsCredentialsFromGuard(headers(), clock);
  assert.deepEqual(asked, []);
  const client = new STSClient({ region: "eu-central-1", endpoint: aws.endpoint, credentials, maxAttempts: 1 });
  for (let turn = 0; turn < 3; turn += 1) await client.send(new GetCallerIdentityCommand({}));
  assert.equal((await credentials()).accountId, "111122223333");
  assert.deepEqual(aws.signedBy, Array(3).fill(["ASIAGUARD", "session-of-guard=="]));
  clock.shiftMs += 301_000;
  await assert.rejects(client.send(new GetCallerIdentityCommand({})), AwsCredentialsExpiredError);
  assert.deepEqual(asked, [[PATH, SECRET]]);
});

test("headers of every kind are read", async () => {
  const upper = Object.fromEntries(Object.entries(headers()).map(([name, value]) => [name.toUpperCase(), value]));
  for (const each of [new Headers(headers() as Record<string, string>), upper, headers({ "deputize-aws-authorization": [SECRET] })]) {
    assert.equal((await awsCredentialsFromGuard(each, clock)()).accessKeyId, "ASIAGUARD");
  }
});

test("a request that came past the guard has none", () => {
  for (const changes of [
    { "deputize-aws-credentials-uri": undefined }, { "deputize-aws-authorization": undefined },
    { "deputize-aws-authorization": [SECRET, SECRET] },
  ]) {
    assert.throws(() => awsCredentialsFromGuard(headers(changes)), (error) => {
      assert.ok(error instanceof ConfigurationError);
      return /--aws-credentials/.test(error.whatToDo);
    });
  }
});

for (const uri of [
  "https://127.0.0.1:8080/aws/an-address-of-this-call", "http://10.0.0.1:8080/aws/an-address-of-this-call",
  "http://169.254.169.254:80/aws/an-address-of-this-call", "http://localhost:8080/aws/an-address-of-this-call",
  "http://127.0.0.1/aws/an-address-of-this-call", "http://127.0.0.1:0x50/aws/an-address-of-this-call",
  "http://127.0.0.1:99999/aws/an-address-of-this-call", "http://127.0.0.999:80/aws/an-address-of-this-call",
  "http://user@127.0.0.1:8080/aws/an-address-of-this-call",
  "http://127.0.0.1:8080@evil.example.com:80/aws/an-address-of-this-call",
  "http://127.0.0.1:8080/aws/an-address-of-this-call?x=1", "http://127.0.0.1:8080/aws/an-address-of-this-call#x",
  "http://127.0.0.1:8080/aws/../admin/of-this-machine", "http://127.0.0.1:8080/admin/an-address-of-this-call",
  "http://127.0.0.1:8080/aws/short", "http://127.0.0.1:8080/aws/an-address-of-this-call\n", "file:///etc/passwd",
  "//127.0.0.1:8080/aws/an-address-of-this-call", "http://[::ffff:10.0.0.1]:80/aws/an-address-of-this-call", "",
]) {
  test(`no other address is asked: ${JSON.stringify(uri)}`, () => {
    assert.throws(() => awsCredentialsFromGuard(headers({ "deputize-aws-credentials-uri": uri })), /no address of a guard on this machine/);
  });
}

test("no other secret is sent", () => {
  for (const secret of ["", "short", "with space in it, as no secret has", "x".repeat(600), "line\r\nbreaks-in-it-are"]) {
    assert.throws(() => awsCredentialsFromGuard(headers({ "deputize-aws-authorization": secret })), /no secret of a guard/);
  }
});

test("redirects are not followed, and what is gone has ended", async () => {
  for (const [said, kind] of [
    [302, ExchangeError], [307, ExchangeError], [502, ExchangeError], [404, AwsCredentialsExpiredError],
  ] as const) {
    status = said;
    await assert.rejects(awsCredentialsFromGuard(headers(), clock)(), kind);
  }
  assert.deepEqual(asked.map(([path]) => path), Array(4).fill(PATH));
});

test("what the guard was refused is said and stands", async () => {
  [status, body] = [403, () => JSON.stringify({ code: "Denied", message: "access_denied: no\u001b[2J (decision d-1)" })];
  const provider = awsCredentialsFromGuard(headers(), clock);
  for (let turn = 0; turn < 2; turn += 1) {
    await assert.rejects(provider(), (error) => {
      assert.ok(error instanceof ExchangeError);
      assert.match(error.message, /^Denied: access_denied: no\[2J \(decision d-1\): look at the guard's log/);
      return true;
    });
    clock.shiftMs += 60_000;
  }
  assert.equal(asked.length, 1);
});

test("what may pass is asked for again when the guard says", async () => {
  for (const said of [429, 503]) {
    status = said;
    const provider = awsCredentialsFromGuard(headers(), clock);
    const before = asked.length;
    for (let turn = 0; turn < 2; turn += 1) {
      await assert.rejects(provider(), (error) => error instanceof RetryLaterError && error.retryAfterSeconds === 3);
    }
    assert.equal(asked.length, before + 1);
    clock.shiftMs += 3_000;
    status = 200;
    assert.equal((await provider()).accessKeyId, "ASIAGUARD");
  }
});

test("an answer is bounded and read strictly", async () => {
  for (const text of [
    content({ Token: "x".repeat(70_000) }), content({ Token: "x\n" }), content({ AccessKeyId: 1 }), content({ Expiration: "soon" }),
    "secret/of+guard", "",
  ]) {
    body = () => text;
    await assert.rejects(awsCredentialsFromGuard(headers(), clock)(), (error) => {
      assert.ok(error instanceof ProtocolError);
      return !error.message.includes("secret/of");
    });
  }
});

test("a guard that is gone is said to be", async () => {
  const gone = headers({ "deputize-aws-credentials-uri": `http://127.0.0.1:1${PATH}` });
  await assert.rejects(awsCredentialsFromGuard(gone, clock)(), UnreachableError);
});
