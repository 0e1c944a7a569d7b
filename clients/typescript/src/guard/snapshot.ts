/** What a guard knows of its server: the approved tools and the broker's keys, as a signed snapshot. */

import { encodeBase64url, sha256 } from "../call/bytes.js";
import { isDigest } from "../call/digest.js";
import { isObject, type Json, type JsonObject, MAX_DEPTH, parseValue, wholeNumberAt } from "../call/json.js";
import { checkTimes, parseJws, stringClaim } from "../call/jws.js";
import { KeySet } from "../call/keys.js";
import { type Action, Offers } from "../call/offers.js";
import { find } from "../call/resource.js";
import { malformed, type Pinned, pinAll, SnapshotError } from "./pin.js";
import { readRevocation, type Revocation } from "./revocation.js";

/** `typ` of the signature over a snapshot. */
export const SNAPSHOT_TYP = "deputize-snapshot+jwt";

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
  readonly tools: ReadonlyMap<string, Pinned>;
  readonly prompts: ReadonlyMap<string, Pinned>;
  /** By their entries: a URI, or with `/*` at its end everything below. */
  readonly resources: ReadonlyMap<string, Pinned>;
  /** Everything that can be asked for, counted. */
  readonly offers: Offers;
  readonly revocations: readonly Revocation[];
}

/** What this action acts on, if it is approved. */
export function pinnedIn(snapshot: Snapshot, action: Action, name: string): Pinned | undefined {
  if (action === "tools/call") return snapshot.tools.get(name);
  if (action === "prompts/get") return snapshot.prompts.get(name);
  return snapshot.resources.get(entryOf(snapshot, name) ?? "");
}

/** The entry that names this resource: the most exact one decides. */
export function entryOf({ resources }: Snapshot, uri: string): string | undefined {
  const entry = find(resources, uri);
  return entry !== undefined && resources.get(entry)?.enabled === true ? entry : undefined;
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
  const tools = await pinAll(document["tools"], "tools");
  const prompts = await pinAll(document["prompts"] ?? [], "prompts");
  const resources = await pinAll(document["resources"] ?? [], "resources");
  const enabled = [...resources].filter(([, pinned]) => pinned.enabled).map(([entry]) => entry);
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
    tools,
    prompts,
    resources,
    offers: await Offers.of(tools.keys(), prompts.keys(), enabled),
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

const DOCUMENT_MEMBERS = [
  "version", "issued_at", "expires_at", "issuer", "server_id", "resource", "tenant", "manifest_digest", "jwks", "tools",
  "prompts", "resources", "revocations",
];
const DOCUMENT_LEVELS = 4;
const CLOCK_SKEW_SECONDS = 60;
const MAX_LIFETIME_SECONDS = 3600;
const MAX_SNAPSHOT_LENGTH = 16 * 1024 * 1024;
const MAX_URI_BYTES = 2048;
