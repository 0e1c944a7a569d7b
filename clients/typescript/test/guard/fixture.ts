/** A guard before a payment server, a broker's key, an agent's key, and fakes of the outside. */

import { callDigest, promptDigest, toolDigest } from "../../src/call/digest.js";
import { Offers } from "../../src/call/offers.js";
import { accessTokenHash } from "../../src/call/dpop.js";
import { encodeBase64url, sha256 } from "../../src/call/bytes.js";
import { type JsonObject, parseObject } from "../../src/call/json.js";
import { KeySet } from "../../src/call/keys.js";
import { Signer } from "../../src/client/signer.js";
import type { GuardSettings } from "../../src/guard/config.js";
import { Guard, type Outside } from "../../src/guard/guard.js";
import type { IncomingCall } from "../../src/guard/headers.js";
import type { ObservedTools } from "../../src/guard/known.js";
import { Refusal } from "../../src/guard/refusal.js";
import { openSnapshot, readSnapshot, type Snapshot, SNAPSHOT_TYP } from "../../src/guard/snapshot.js";
import type { Verified, VerifiedCall } from "../../src/guard/verified.js";

export const ISSUER = "https://deputize.example.com";
export const RESOURCE = "https://pay.example.com/mcp";
export const NOW = 1_800_000_000;

/** Anything that `JSON.stringify` takes. */
export type Loose = Record<string, unknown>;

/** What a proof says, where it differs from an honest one. `null`: the member is left out. */
export interface ProofChanges {
  htm?: string;
  htu?: string;
  jti?: string;
  iat?: number;
  nonce?: string | null;
  accessToken?: string | null;
}

/** One request in the making; every part can be changed before it is sent. */
export class Draft {
  method = "POST";
  path = "/mcp";
  headers: [string, string][] = [["Content-Type", "application/json"]];
  body: Uint8Array;
  certificate: string | undefined;

  constructor(body: unknown) {
    this.body = Buffer.from(typeof body === "string" ? body : JSON.stringify(body));
  }

  header(name: string, value: string): this {
    this.headers.push([name, value]);
    return this;
  }

  replace(name: string, value: string): this {
    this.headers = this.headers.filter(([present]) => present !== name);
    return this.header(name, value);
  }

  incoming(): IncomingCall {
    return { method: this.method, headers: this.headers, body: this.body, clientCertificate: this.certificate };
  }
}

/** Redeems in memory; says what it is told about the server. */
export class FakeOutside implements Outside {
  readonly redeemed = new Set<string>();
  redemption: Awaited<ReturnType<Outside["redeem"]>> | undefined;
  /** What happens while a token is redeemed. */
  meanwhile: () => void = () => undefined;
  admission: Awaited<ReturnType<NonNullable<Outside["admit"]>>> = "ready";

  declare awsCredentials?: NonNullable<Outside["awsCredentials"]>;

  async redeem(token: string): ReturnType<Outside["redeem"]> {
    this.meanwhile();
    if (this.redemption !== undefined) return this.redemption;
    if (this.redeemed.has(token)) return "already_used";
    this.redeemed.add(token);
    return "redeemed";
  }

  async admit(): ReturnType<NonNullable<Outside["admit"]>> {
    return this.admission;
  }
}

export class Fixture {
  now = NOW;
  uptimeMs = 1_000_000;
  private serial = 0;

  private constructor(
    readonly broker: Signer,
    readonly agent: Signer,
    readonly outside: FakeOutside,
  ) {}

  guard!: Guard;

  static async create(settings: Partial<GuardSettings> = {}): Promise<Fixture> {
    const fixture = new Fixture(await Signer.generate(), await Signer.generate(), new FakeOutside());
    fixture.guard = await fixture.emptyGuard(settings);
    fixture.guard.install(await fixture.snapshot());
    await fixture.observe(DEFINITIONS);
    return fixture;
  }

  /** A guard of this fixture that knows nothing yet. It started a thousand seconds ago. */
  async emptyGuard(settings: Partial<GuardSettings> = {}): Promise<Guard> {
    const now = this.now;
    this.now -= 1_000;
    const clock = { nowMs: () => this.now * 1000, uptimeMs: () => this.uptimeMs, uniqueId: () => `id-${this.serial++}` };
    const all = { issuer: ISSUER, resource: RESOURCE, publicUrl: RESOURCE, ...settings };
    const guard = await Guard.create(all, this.outside, clock);
    this.now = now;
    return guard;
  }

  observe(definitions: readonly unknown[]): Promise<ObservedTools> {
    return this.guard.observeTools(definitions.map((each) => parseObject(JSON.stringify(each))));
  }

  async document(): Promise<Loose> {
    const levels = ["L1", "L2", "L3"];
    const tools = await Promise.all(
      DEFINITIONS.map(async (definition, index) => ({
        definition, tool_digest: await digestOf(definition.name), least_level: levels[index], tier: "low",
      })),
    );
    return {
      version: 1, issued_at: NOW - 10, expires_at: NOW + 1800, issuer: ISSUER, server_id: "pay", resource: RESOURCE,
      tenant: "acme", manifest_digest: MANIFEST, jwks: { keys: [{ ...this.broker.publicJwk, kid: this.broker.kid }] },
      tools, revocations: [],
    };
  }

  async snapshot(changes: Loose = {}): Promise<Snapshot> {
    return readSnapshot(JSON.stringify({ ...(await this.document()), ...changes }), this.now);
  }

  /** Signs a snapshot as the broker does. */
  async signed(document: Loose, signer: Signer, typ = SNAPSHOT_TYP): Promise<{ snapshot: string; signature: string }> {
    const snapshot = JSON.stringify(document);
    const { issuer: iss, resource: aud, issued_at: iat, expires_at: exp } = document;
    const digest = encodeBase64url(await sha256(snapshot));
    return { snapshot, signature: await signer.sign(typ, { iss, aud, iat, exp, sha256: digest }) };
  }

  open(signed: { snapshot: string; signature: string }, signers: KeySet, now = this.now): Promise<Snapshot> {
    return openSnapshot(signed, signers, now);
  }

  claims(detail: Loose): Loose {
    const serial = this.serial++;
    return {
      iss: ISSUER, sub: "user:acme:x:alice", tenant: "acme", aud: RESOURCE, client_id: "platform",
      iat: this.now, nbf: this.now, exp: this.now + 60, jti: `token-${serial}`, scope: "tool",
      cnf: { jkt: this.agent.thumbprint }, act: { sub: "agent:support", act: { sub: "agent:planner" } },
      txn: `txn-${serial}`, pjti: `parent-${serial}`, authorization_details: [detail],
      log: { origin: "replica-1", index: serial },
    };
  }

  sign(claims: Loose): Promise<string> {
    return this.broker.sign("at+jwt", claims);
  }

  async proof(token: string, changes: ProofChanges = {}, key: Signer = this.agent): Promise<string> {
    const nonce = changes.nonce === undefined ? await this.nonce() : changes.nonce;
    const accessToken = changes.accessToken === undefined ? token : changes.accessToken;
    return key.signWithEmbeddedKey("dpop+jwt", {
      htm: changes.htm ?? "POST",
      htu: changes.htu ?? RESOURCE,
      jti: changes.jti ?? `proof-${this.serial++}`,
      iat: changes.iat ?? this.now,
      ...(nonce === null ? {} : { nonce }),
      ...(accessToken === null ? {} : { ath: await accessTokenHash(accessToken) }),
    });
  }

  /** A nonce as an agent gets it: from the answer to a request without a token. */
  async nonce(): Promise<string> {
    return (await this.refused(new Draft({ jsonrpc: "2.0", id: 1, method: "ping" }))).dpopNonce ?? "";
  }

  /** The request of an honest agent. */
  async request(token: string, body: unknown): Promise<Draft> {
    return new Draft(body).header("Authorization", `DPoP ${token}`).header("DPoP", await this.proof(token));
  }

  send(draft: Draft): Promise<Verified> {
    return this.guard.verify(draft.incoming());
  }

  async refused(draft: Draft): Promise<Refusal> {
    return refusalOf(this.send(draft));
  }

  /** Sends `body` with a fresh token of this grant. */
  async withGrant(detail: Loose, body: unknown): Promise<Verified> {
    return this.send(await this.request(await this.sign(this.claims(detail)), body));
  }

  pass(seconds: number): void {
    this.uptimeMs += seconds * 1000;
    this.now += seconds;
  }
}

/** What a request is refused with; fails where it passes. */
export async function refusalOf(verified: Promise<unknown>): Promise<Refusal> {
  const refusal = await verified.then(
    () => new Error("it passed"),
    (error: unknown) => error,
  );
  if (refusal instanceof Refusal) return refusal;
  throw refusal;
}

/** Whether a request passes. */
export async function passes(verified: Promise<unknown>): Promise<boolean> {
  return verified.then(
    () => true,
    (error: unknown) => (error instanceof Refusal ? false : Promise.reject(error)),
  );
}

export async function verifiedCall(verified: Promise<Verified>): Promise<VerifiedCall> {
  const call = await verified;
  if (call.kind !== "call") throw new Error("not a call");
  return call;
}

const PROPERTIES = {
  payment_id: { type: "string", "x-mcp-header": "Payment" },
  amount_cents: { type: "number", "x-mcp-header": "Amount" },
  note: { type: "string" },
  lines: { type: "array", items: { type: "object", properties: { sku: {}, n: {} } } },
};

/** `lookup` (L1), `transfer` (L2), `refund` (L3). */
export const DEFINITIONS = ["lookup", "transfer", "refund"].map((name) => ({
  name,
  description: name,
  inputSchema: { type: "object", properties: PROPERTIES },
}));

export async function digestOf(name: string): Promise<string> {
  const definition = DEFINITIONS.find((each) => each.name === name);
  return toolDigest(parseObject(JSON.stringify(definition)));
}

export function call(name: string, args: unknown): { params: Loose } & Loose {
  return { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
}

export const LIST = { jsonrpc: "2.0", id: "a", method: "tools/list" };

const MANIFEST = await sha256("manifest").then(encodeBase64url);

const NAMES = DEFINITIONS.map(({ name }) => name);
const SHOWN = await shownOf([NAMES, [], []], []);

/** A token that looks, and shows all tools. */
export function l0(): Loose {
  return { ...granted(), actions: ["tools/list"], shown: SHOWN };
}

/** A token that looks at a server with {@link material}, and shows all of it but what is hidden. */
export async function l0OfAll(hidden: readonly string[] = []): Promise<Loose> {
  const entries = RESOURCES.filter(({ enabled }) => enabled).map(({ shown }) => shown.uri);
  return { ...l0(), shown: await shownOf([NAMES, PROMPTS.map(({ name }) => name), entries], hidden) };
}

async function shownOf(kinds: readonly [string[], string[], string[]], hidden: readonly string[]): Promise<Loose> {
  const { digest } = await Offers.of(...kinds);
  const offers = kinds.flatMap((names) => [...names].sort());
  const bits = new Uint8Array(Math.ceil(offers.length / 8));
  offers.forEach((name, at) => {
    if (!hidden.includes(name)) bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7));
  });
  const end = bits.findLastIndex((byte) => byte !== 0) + 1;
  return { of: digest, bits: encodeBase64url(bits.slice(0, end)) };
}

export function granted(): Loose {
  return { type: "mcp_tool_call", locations: [RESOURCE], manifest_digest: MANIFEST, policy: { digest: "p", ids: [] } };
}

export const PROMPTS = [
  { name: "greet", description: "Greets.", arguments: [{ name: "city", required: true }, { name: "mood" }] },
  { name: "vault", description: "Opens." },
];

export const RESOURCES = [
  { enabled: true, shown: { uri: "demo://docs/*", name: "Documents", description: "Of the demo" } },
  { enabled: false, shown: { uri: "demo://docs/drafts/*", name: "Drafts" } },
  { enabled: true, shown: { uri: "demo://vault/*", name: "Vault" } },
];

/** Members of a snapshot's document: two prompts, and resources of which the drafts are switched off. */
export async function material(): Promise<Loose> {
  const pinned = { least_level: "L1", tier: "low" };
  const prompts = await Promise.all(
    PROMPTS.map(async (definition) => ({ ...pinned, definition, prompt_digest: await promptDigest(parseObject(JSON.stringify(definition))) })),
  );
  return { prompts, resources: RESOURCES.map((resource) => ({ ...pinned, ...resource })) };
}

export async function promptToken(name: string, more: Loose = {}): Promise<Loose> {
  const definition = parseObject(JSON.stringify(PROMPTS.find((each) => each.name === name)));
  return { ...granted(), actions: ["prompts/get"], identifier: name, prompt_digest: await promptDigest(definition), ...more };
}

export function readToken(uri: string): Loose {
  return { ...granted(), actions: ["resources/read"], identifier: uri };
}

export function get(name: string, args: unknown): { params: Loose } & Loose {
  return { jsonrpc: "2.0", id: 1, method: "prompts/get", params: { name, arguments: args } };
}

export function read(uri: string): { params: Loose } & Loose {
  return { jsonrpc: "2.0", id: 1, method: "resources/read", params: { uri } };
}

export async function l1(name: string): Promise<Loose> {
  return { ...granted(), actions: ["tools/call"], identifier: name, tool_digest: await digestOf(name) };
}

export async function l2(name: string, constraints: Loose, maxUses: number): Promise<Loose> {
  return { ...(await l1(name)), constraints, max_uses: maxUses };
}

export async function l3(name: string, args: unknown): Promise<Loose> {
  const input = { method: "tools/call", name, arguments: args as JsonObject };
  return { ...(await l1(name)), call_digest: await callDigest(input), max_uses: 1 };
}
