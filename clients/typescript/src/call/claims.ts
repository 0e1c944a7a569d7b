/** The claims of a tool-call token (RFC 9068 `at+jwt`, with `act`, `cnf`, `authorization_details`). */

import { type Constraints, readConstraints } from "./constraints.js";
import { isDigest } from "./digest.js";
import { isObject, type Json, type JsonObject, wholeNumberAt } from "./json.js";
import { JwsError } from "./jws.js";
import type { Level } from "./level.js";
import { readBits, type Shown } from "./offers.js";

/** `typ` of a tool-call token (RFC 9068 §2.1). */
export const TOKEN_TYP = "at+jwt";
/** `type` of the one `authorization_details` entry (RFC 9396). */
export const DETAIL_TYPE = "mcp_tool_call";

/** All claims of a tool-call token. Times are seconds since the Unix epoch. */
export interface ToolCallClaims {
  /** The broker. */
  readonly iss: string;
  /** The person in whose name the call runs; for a client's own L0 token, the client. */
  readonly sub: string;
  /** The tenant, which client, server and person share. */
  readonly tenant: string;
  /** The server's resource URI, alone. */
  readonly aud: string;
  /** The OAuth client that made the exchange. */
  readonly clientId: string;
  readonly iat: number;
  readonly nbf: number;
  readonly exp: number;
  /** Unique id of the token. */
  readonly jti: string;
  /** Names the tool; `mcp:list` at L0. */
  readonly scope: string;
  /** The key that the bearer must prove: `jkt` (RFC 9449 §6.1) or `x5t#S256` (RFC 8705 §3.1). */
  readonly cnf: { readonly kind: "jkt" | "x5t#S256"; readonly thumbprint: string };
  /** Who acts for `sub`, from the agent that acts now back to the first. Empty where a client acts for itself. */
  readonly actors: readonly string[];
  /** The transaction, constant through every hop. */
  readonly txn: string;
  /** `jti` of the token that this one was made from. */
  readonly pjti: string | undefined;
  /** What was granted. */
  readonly detail: GrantedDetail;
  /** Where the intent record of the token stands in the audit log. */
  readonly log: { readonly origin: string; readonly index: number };
}

/** The one `authorization_details` entry, as granted. */
export interface GrantedDetail {
  /** JSON-RPC methods: one at L1 and above, the listing methods at L0. */
  readonly actions: readonly string[];
  /** Tool, prompt or resource; absent at L0. */
  readonly identifier: string | undefined;
  /** The approved definition of the tool; for `tools/call` alone. */
  readonly toolDigest: string | undefined;
  /** The approved definition of the prompt; for `prompts/get` alone. */
  readonly promptDigest: string | undefined;
  /** The approved manifest of the server. */
  readonly manifestDigest: string;
  /** L3: the one call. */
  readonly callDigest: string | undefined;
  /** L2: what each argument may be. */
  readonly constraints: Constraints | undefined;
  /** How many calls; 1 at L3. */
  readonly maxUses: number | undefined;
  /** L0: what lists show. A token without it shows nothing. */
  readonly shown: Shown | undefined;
  /** The policy set, and the policies in it, that allowed it. */
  readonly policy: { readonly digest: string; readonly ids: readonly string[] };
}

/** The binding level that an entry expresses. */
export function levelOf(detail: GrantedDetail): Level {
  if (detail.callDigest !== undefined) return "L3";
  if (detail.constraints !== undefined) return "L2";
  return detail.identifier === undefined ? "L0" : "L1";
}

/**
 * Reads the claims and checks that they agree with each other and have the shape of their level. A token that fails
 * this was not made by a broker of ours. Unknown claims are ignored, unknown members inside of ours are not.
 */
export function readClaims(claims: JsonObject): ToolCallClaims {
  const [iat, nbf, exp] = [count(claims, "iat"), count(claims, "nbf"), count(claims, "exp")];
  if (exp < nbf || exp < iat) throw new JwsError("claim", "exp", "before the token begins");
  const log = only(claims["log"], ["origin", "index"]);
  const aud = text(claims, "aud");
  return {
    iss: text(claims, "iss"),
    sub: text(claims, "sub"),
    tenant: text(claims, "tenant"),
    aud,
    clientId: text(claims, "client_id"),
    iat,
    nbf,
    exp,
    jti: text(claims, "jti"),
    scope: text(claims, "scope"),
    cnf: readConfirmation(claims["cnf"]),
    actors: readActors(claims["act"]),
    txn: text(claims, "txn"),
    pjti: claims["pjti"] === undefined ? undefined : text(claims, "pjti"),
    detail: readDetail(claims["authorization_details"], aud),
    log: { origin: text(log, "origin"), index: count(log, "index") },
  };
}

function readConfirmation(cnf: Json | undefined): ToolCallClaims["cnf"] {
  const members = only(cnf, ["jkt", "x5t#S256"]);
  const [kind, ...more] = Object.keys(members) as ("jkt" | "x5t#S256")[];
  if (kind === undefined || more.length > 0) throw shape("cnf");
  const thumbprint = members[kind];
  if (!isDigest(thumbprint)) throw shape("cnf");
  return { kind, thumbprint };
}

function readActors(act: Json | undefined): string[] {
  const actors: string[] = [];
  for (let actor = act; actor !== undefined; ) {
    const members = only(actor, ["sub", "act"]);
    actors.push(text(members, "sub"));
    actor = members["act"];
  }
  return actors;
}

function readDetail(details: Json | undefined, aud: string): GrantedDetail {
  if (!Array.isArray(details) || details.length !== 1) throw shape("authorization_details");
  const detail = only(details[0] as Json, DETAIL_MEMBERS);
  if (detail["type"] !== DETAIL_TYPE) throw shape("type");
  const locations = texts(detail, "locations");
  if (locations.length !== 1 || locations[0] !== aud) throw shape("locations");
  const constraints = detail["constraints"];
  const policy = only(detail["policy"], ["digest", "ids"]);
  const read: GrantedDetail = {
    actions: texts(detail, "actions"),
    identifier: detail["identifier"] === undefined ? undefined : text(detail, "identifier"),
    toolDigest: optionalDigest(detail, "tool_digest"),
    promptDigest: optionalDigest(detail, "prompt_digest"),
    manifestDigest: optionalDigest(detail, "manifest_digest") ?? missing("manifest_digest"),
    callDigest: optionalDigest(detail, "call_digest"),
    constraints: constraints === undefined ? undefined : readGrantedConstraints(constraints),
    maxUses: detail["max_uses"] === undefined ? undefined : count(detail, "max_uses"),
    shown: detail["shown"] === undefined ? undefined : readShown(detail["shown"]),
    policy: { digest: string(policy, "digest"), ids: texts(policy, "ids") },
  };
  checkDetail(read);
  return read;
}

/** Whether the entry has exactly the members of its level. */
function checkDetail(detail: GrantedDetail): void {
  const level = levelOf(detail);
  if (detail.actions.length === 0 || detail.actions.includes("")) throw shape("actions");
  if (level === "L0") {
    if (detail.toolDigest !== undefined) throw shape("tool_digest");
    if (detail.promptDigest !== undefined) throw shape("prompt_digest");
    return;
  }
  if (detail.shown !== undefined) throw shape("shown");
  if (detail.identifier === undefined || detail.actions.length !== 1) throw shape("identifier");
  const [action] = detail.actions;
  if ((detail.toolDigest !== undefined) !== (action === "tools/call")) throw shape("tool_digest");
  if ((detail.promptDigest !== undefined) !== (action === "prompts/get")) throw shape("prompt_digest");
  const { maxUses } = detail;
  if (level === "L3") {
    // A call digest beside constraints would leave open which of them binds.
    if (maxUses !== 1 || detail.constraints !== undefined) throw shape("max_uses");
  } else if (maxUses === 0 || (level === "L2" && maxUses === undefined)) {
    throw shape("max_uses");
  }
}

function readShown(shown: Json): Shown {
  const members = only(shown, ["of", "bits"]);
  const bits = readBits(string(members, "bits"));
  if (bits === undefined) throw shape("shown");
  return { of: optionalDigest(members, "of") ?? missing("of"), bits };
}

function readGrantedConstraints(constraints: Json): Constraints {
  try {
    return readConstraints(constraints);
  } catch {
    throw shape("constraints");
  }
}

function only(value: Json | undefined, names: readonly string[]): JsonObject {
  if (!isObject(value) || !Object.keys(value).every((name) => names.includes(name))) throw new JwsError("shape");
  return value;
}

function string(object: JsonObject, name: string): string {
  const value = object[name];
  if (typeof value !== "string") throw shape(name);
  return value;
}

function text(object: JsonObject, name: string): string {
  const value = string(object, name);
  if (value === "") throw shape(name);
  return value;
}

function texts(object: JsonObject, name: string): string[] {
  const value = object[name];
  if (!Array.isArray(value) || !value.every((each) => typeof each === "string")) throw shape(name);
  return value;
}

function count(object: JsonObject, name: string): number {
  const value = wholeNumberAt(object, name);
  if (value === undefined || value < 0) throw shape(name);
  return value;
}

function optionalDigest(object: JsonObject, name: string): string | undefined {
  const value = object[name];
  if (value !== undefined && !isDigest(value)) throw shape(name);
  return value;
}

function missing(name: string): never {
  throw shape(name);
}

function shape(member: string): JwsError {
  return new JwsError("shape", member);
}

const DETAIL_MEMBERS = [
  "type", "locations", "actions", "identifier", "tool_digest", "prompt_digest", "manifest_digest", "call_digest",
  "constraints", "max_uses", "shown", "policy",
];
