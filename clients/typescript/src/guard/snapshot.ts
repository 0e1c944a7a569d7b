/** What a guard knows of its server: the approved tools and the broker's keys, as a signed snapshot. */

import { encodeBase64url, sha256 } from "../call/bytes.js";
import { isDigest, toolDigest } from "../call/digest.js";
import { isObject, type Json, type JsonObject, MAX_DEPTH, parseValue, wholeNumberAt } from "../call/json.js";
import { checkTimes, parseJws, stringClaim } from "../call/jws.js";
import { KeySet } from "../call/keys.js";
import { isLevel, type Level } from "../call/level.js";
import { PinnedSchema } from "../call/schema.js";
import { readRevocation, type Revocation } from "./revocation.js";

/** `typ` of the signature over a snapshot. */
export const SNAPSHOT_TYP = "deputize-snapshot+jwt";

/** Why a snapshot is refused. */
export class SnapshotError extends Error {
  override readonly name = "SnapshotError";

  constructor(
    /** Which kind of failure it was. */
    readonly problem: "malformed" | "signature" | "other" | "time" | "older" | "tool",
    detail: string,
  ) {
    super(`snapshot refused: ${detail}`);
  }
}

/** A tool as calls are held against it. */
export interface PinnedTool {
  readonly definition: JsonObject;
  readonly toolDigest: string;
  readonly schema: PinnedSchema;
  /** The least level of its tokens. */
  readonly leastLevel: Level;
}

/** A snapshot whose every tool was checked and compiled. */
export interface Snapshot {
  /** Grows with every change, revocations included; a guard never goes back. */
  readonly version: number;
  /** Seconds since the epoch. */
  readonly expiresAt: number;
  /** The broker. */
  readonly issuer: string;
  /** The server's resource URI. */
  readonly resource: string;
  readonly serverId: string;
  readonly tenant: string;
  readonly manifestDigest: string;
  /** The keys that sign tool-call tokens. */
  readonly keys: KeySet;
  readonly tools: ReadonlyMap<string, PinnedTool>;
  readonly revocations: readonly Revocation[];
}

/** Verifies the signature of what the broker serves at `/guard/snapshot` with the configured keys, and reads it. */
export async function openSnapshot(signed: Json, signers: KeySet, nowSeconds: number): Promise<Snapshot> {
  const { snapshot: text, signature } = only(signed, ["snapshot", "signature"], "the signed snapshot");
  if (typeof text !== "string" || typeof signature !== "string") throw malformed("the signed snapshot");
  const claims = await verifySignature(signature, signers, nowSeconds);
  if (claims["sha256"] !== encodeBase64url(await sha256(text))) {
    throw new SnapshotError("signature", "it is over another text");
  }
  const snapshot = await readSnapshot(text, nowSeconds);
  const says = (name: string, value: string) => stringClaim(claims, name, MAX_URI_BYTES) === value;
  if (!says("iss", snapshot.issuer) || !says("aud", snapshot.resource)) {
    throw new SnapshotError("other", "of another broker or server");
  }
  return snapshot;
}

/**
 * Reads a snapshot whose origin the caller vouches for; from the network use {@link openSnapshot}.
 */
export async function readSnapshot(text: string, nowSeconds: number): Promise<Snapshot> {
  if (text.length > MAX_SNAPSHOT_LENGTH) throw malformed("longer than 16 MiB");
  const document = only(parsed(text), DOCUMENT_MEMBERS, "the document");
  const [version, issuedAt, expiresAt] = ["version", "issued_at", "expires_at"].map((name) => count(document, name));
  if (version === undefined || issuedAt === undefined || expiresAt === undefined) throw malformed("times");
  const beginsSoon = issuedAt <= nowSeconds + CLOCK_SKEW_SECONDS;
  const isShort = expiresAt - issuedAt <= MAX_LIFETIME_SECONDS;
  if (!beginsSoon || !isShort || expiresAt <= nowSeconds) throw new SnapshotError("time", "outside of its time");
  const manifestDigest = string(document, "manifest_digest");
  if (!isDigest(manifestDigest)) throw malformed("manifest_digest");
  return {
    version,
    expiresAt,
    issuer: string(document, "issuer"),
    resource: string(document, "resource"),
    serverId: string(document, "server_id"),
    tenant: string(document, "tenant"),
    manifestDigest,
    keys: await KeySet.fromJwks(document["jwks"]).catch(() => {
      throw malformed("jwks");
    }),
    tools: await readTools(document["tools"]),
    revocations: readRevocations(document["revocations"] ?? []),
  };
}

async function verifySignature(signature: string, signers: KeySet, nowSeconds: number): Promise<JsonObject> {
  try {
    const jws = parseJws(signature, "refused");
    if (jws.header.typ !== SNAPSHOT_TYP) throw new SnapshotError("signature", "wrong typ");
    await signers.verify(jws);
    checkSignedTimes(jws.claims, nowSeconds);
    return jws.claims;
  } catch (error) {
    if (error instanceof SnapshotError) throw error;
    throw new SnapshotError("signature", error instanceof Error ? error.message : "it does not verify");
  }
}

function checkSignedTimes(claims: JsonObject, nowSeconds: number): void {
  try {
    checkTimes(claims, nowSeconds, CLOCK_SKEW_SECONDS);
  } catch {
    throw new SnapshotError("time", "outside of its time");
  }
}

function parsed(text: string): Json {
  try {
    return parseValue(text, MAX_DEPTH + DOCUMENT_LEVELS);
  } catch {
    throw malformed("not strict JSON");
  }
}

async function readTools(tools: Json | undefined): Promise<Map<string, PinnedTool>> {
  if (!Array.isArray(tools) || tools.length > MAX_TOOLS) throw malformed("tools");
  const read = new Map<string, PinnedTool>();
  for (const tool of tools as Json[]) {
    const members = only(tool, ["definition", "tool_digest", "least_level", "tier"], "a tool");
    const { definition } = members;
    const name = isObject(definition) ? definition["name"] : undefined;
    if (!isObject(definition) || typeof name !== "string") throw malformed("a tool");
    if (read.has(name)) throw broken(name, "stands twice");
    read.set(name, await pin(name, definition, members));
  }
  return read;
}

async function pin(name: string, definition: JsonObject, members: JsonObject): Promise<PinnedTool> {
  const { tool_digest: stated, least_level: leastLevel } = members;
  string(members, "tier");
  if (name === "" || !isLevel(leastLevel) || leastLevel === "L0") {
    throw broken(name, "a tool needs a name and a level above L0");
  }
  const digest = await toolDigest(definition).catch(() => undefined);
  if (digest === undefined || digest !== stated) throw broken(name, "its definition is not the one of its digest");
  try {
    return { definition, toolDigest: digest, schema: PinnedSchema.compile(definition["inputSchema"]), leastLevel };
  } catch (error) {
    throw broken(name, error instanceof Error ? error.message : "its schema is unusable");
  }
}

function readRevocations(value: Json): Revocation[] {
  if (!Array.isArray(value)) throw malformed("revocations");
  return (value as Json[]).map((each) => {
    const revocation = readRevocation(each);
    if (revocation === undefined) throw malformed("a revocation");
    return revocation;
  });
}

function only(value: Json, names: readonly string[], what: string): JsonObject {
  if (!isObject(value) || !Object.keys(value).every((name) => names.includes(name))) throw malformed(what);
  return value;
}

function string(object: JsonObject, name: string): string {
  const value = object[name];
  if (typeof value !== "string") throw malformed(name);
  return value;
}

function count(object: JsonObject, name: string): number | undefined {
  const value = wholeNumberAt(object, name);
  return value !== undefined && value >= 0 ? value : undefined;
}

function malformed(what: string): SnapshotError {
  return new SnapshotError("malformed", `malformed: ${what}`);
}

function broken(tool: string, problem: string): SnapshotError {
  return new SnapshotError("tool", `tool ${JSON.stringify(tool.slice(0, MAX_SHOWN))}: ${problem}`);
}

const DOCUMENT_MEMBERS = [
  "version", "issued_at", "expires_at", "issuer", "server_id", "resource", "tenant", "manifest_digest", "jwks", "tools",
  "revocations",
];
const DOCUMENT_LEVELS = 4;
const CLOCK_SKEW_SECONDS = 60;
const MAX_LIFETIME_SECONDS = 3600;
const MAX_SNAPSHOT_LENGTH = 16 * 1024 * 1024;
const MAX_TOOLS = 500;
const MAX_URI_BYTES = 2048;
const MAX_SHOWN = 128;
