/** A broker that hands out AWS credentials, in this process, and an AWS that says who signed. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { CompactEncrypt, decodeJwt, exportJWK, generateKeyPair, importJWK, type JWK, jwtVerify } from "jose";
import { callDigest } from "../../src/call/digest.js";
import { type JsonObject, parseObject } from "../../src/call/json.js";
import { DeputizeClient } from "../../src/client/client.js";
import type { FetchLike } from "../../src/client/transport.js";
import type { Clock } from "../../src/clock.js";
import { ISSUER, type Loose } from "../guard/fixture.js";

export const WINDOW_SECONDS = 300;
const CLIENT = "pay-guard";

/** Real time, but for what passes when a test says so. */
export class ShiftedClock implements Clock {
  shiftMs = 0;
  nowMs = () => Date.now() + this.shiftMs;
  uptimeMs = () => performance.now() + this.shiftMs;
  uniqueId = () => crypto.randomUUID();
}

/** Answers as the broker does: to the client whose server the token is for, for the arguments that it is for. */
export class AwsBroker {
  readonly asked: URLSearchParams[] = [];
  /** Answers, where it does, in the place of an honest broker. */
  answer: (form: URLSearchParams) => Response | undefined | Promise<Response | undefined> = () => undefined;
  /** What answers are sealed to. */
  sealTo: JWK | undefined;
  private readonly assertions = new Set<string>();

  private constructor(
    readonly clock: Clock,
    private readonly privateKey: JWK,
  ) {}

  static async create(clock: Clock): Promise<AwsBroker> {
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    return new AwsBroker(clock, await exportJWK(privateKey));
  }

  client(encryptionKey?: JWK): Promise<DeputizeClient> {
    const { privateKey, clock, fetch } = this;
    const sealed = encryptionKey === undefined ? {} : { encryptionKey };
    return DeputizeClient.create({ issuer: ISSUER, clientId: CLIENT, privateKey, clock, fetch, ...sealed });
  }

  /** Those of a call: each has its own. */
  credentials(form: URLSearchParams, changes: Loose = {}): Loose {
    const jti = String(decodeJwt(form.get("subject_token") ?? "").jti);
    const ends = new Date((Math.floor(this.clock.nowMs() / 1000) + WINDOW_SECONDS) * 1000);
    return {
      Version: 1,
      AccessKeyId: accessKeyOf(jti),
      SecretAccessKey: `secret/of+${jti}`,
      SessionToken: `session-of-${jti}==`,
      Expiration: ends.toISOString().replace(".000Z", "Z"),
      AccountId: "111122223333",
      decision_id: `decision-${jti}`,
      ...changes,
    };
  }

  readonly fetch: FetchLike = async (url, init) => {
    assert.deepEqual([init?.method, String(url)], ["POST", `${ISSUER}/aws/credentials`]);
    const form = new URLSearchParams(String(init?.body));
    await this.authenticate(form.get("client_assertion") ?? "");
    this.asked.push(form);
    const answer = await this.answer(form);
    if (answer !== undefined) return answer;
    if (!(await isOfTheCall(form))) {
      return Response.json({ error: "invalid_request", error_description: "another call's" }, { status: 400 });
    }
    const content = this.credentials(form);
    if (this.sealTo === undefined) return Response.json(content);
    return new Response(await sealed(content, this.sealTo), { headers: { "content-type": "application/jose" } });
  };

  private async authenticate(assertion: string): Promise<void> {
    const { kty = "", crv = "", x = "", y = "" } = this.privateKey;
    const key = await importJWK({ kty, crv, x, y }, "ES256");
    const options = { issuer: CLIENT, audience: ISSUER, currentDate: new Date(this.clock.nowMs()) };
    const { payload } = await jwtVerify(assertion, key, options);
    assert.ok(!this.assertions.has(String(payload.jti)), "an assertion serves once");
    this.assertions.add(String(payload.jti));
  }
}

export function accessKeyOf(jti: string): string {
  return `ASIA${jti.replace(/[^A-Za-z0-9]/g, "").toUpperCase()}`;
}

/** A compact JWE as the broker makes it, but for the header's changes. */
export async function sealed(content: Loose, key: JWK, header: Loose = {}): Promise<string> {
  const alg = key.kty === "EC" ? "ECDH-ES+A256KW" : "RSA-OAEP-256";
  const said = { alg, enc: "A256GCM", cty: "application/json", ...header };
  const { kty = "", crv, x, y, n, e } = key;
  const members = kty === "EC" ? { kty, crv, x, y } : { kty, n, e };
  const publicKey = await importJWK(members as JWK, String(said.alg));
  return new CompactEncrypt(new TextEncoder().encode(JSON.stringify(content))).setProtectedHeader(said).encrypt(publicKey);
}

async function isOfTheCall(form: URLSearchParams): Promise<boolean> {
  assert.equal(form.get("subject_token_type"), "urn:ietf:params:oauth:token-type:access_token");
  const [detail] = decodeJwt(form.get("subject_token") ?? "")["authorization_details"] as Loose[];
  const part = (name: string) => {
    const text = form.get(name);
    return text === null ? undefined : parseObject(`{"value":${text}}`)["value"];
  };
  const digest = await callDigest({
    method: "tools/call",
    name: String(detail?.["identifier"]),
    arguments: part("arguments") as JsonObject,
    inputResponses: part("input_responses"),
    requestState: part("request_state"),
  });
  return detail?.["call_digest"] === undefined || detail["call_digest"] === digest;
}

/** Stands for AWS: remembers with which key and token each request was signed. */
export class Aws {
  readonly signedBy: [key: string, token: string][] = [];
  readonly bodies: string[] = [];

  private constructor(
    readonly endpoint: string,
    readonly close: () => Promise<void>,
  ) {}

  static async start(): Promise<Aws> {
    const server = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => (body += text));
      request.once("end", () => {
        const [, key = ""] = /^AWS4-HMAC-SHA256 Credential=([^/]+)\//.exec(request.headers.authorization ?? "") ?? [];
        aws.signedBy.push([key, String(request.headers["x-amz-security-token"])]);
        aws.bodies.push(body);
        response.setHeader("content-type", "text/xml");
        response.end(
          `<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::111122223333:assumed-role/r/${key}</Arn>` +
            "</GetCallerIdentityResult></GetCallerIdentityResponse>",
        );
      });
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const close = () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    const aws = new Aws(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, close);
    return aws;
  }
}
