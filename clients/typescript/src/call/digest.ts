/**
 * The digests that pin what runs: `call_digest`, `tool_digest`, `manifest_digest`.
 * Each is base64url(SHA-256(prefix ‖ 0x00 ‖ JCS(object))).
 */

import { decodeBase64url, encodeBase64url, sha256 } from "./bytes.js";
import { canonicalize } from "./canonical.js";
import { checkValue, MAX_DEPTH, type Json, type JsonObject } from "./json.js";

/** What is digested of one call. */
export interface CallInput {
  /** JSON-RPC method, for example `tools/call`. */
  readonly method: string;
  /** Tool or prompt name; for `resources/read` the URI verbatim. */
  readonly name: string;
  /** The call's arguments; `{}` where the call has none. */
  readonly arguments: JsonObject;
  /** `inputResponses` of a multi-round-trip retry. */
  readonly inputResponses?: Json | undefined;
  /** `requestState` of a multi-round-trip retry. */
  readonly requestState?: Json | undefined;
}

/** The digest of one call. Each part may be 32 levels deep. Throws `JsonError` for what has no digest. */
export async function callDigest(input: CallInput): Promise<string> {
  checkValue(input.arguments, MAX_DEPTH);
  const form: Record<string, Json> = { a: input.arguments, m: input.method, n: input.name };
  // They steer the call: a retry with other responses is another call.
  for (const [member, steering] of [["i", input.inputResponses], ["s", input.requestState]] as const) {
    if (steering === undefined) continue;
    checkValue(steering, MAX_DEPTH);
    form[member] = steering;
  }
  return digest("mcp-call/1", form);
}

/**
 * The digest of a tool's definition, over exactly the members present among name, title, description, inputSchema,
 * outputSchema, annotations. Absent is not `null`.
 */
export async function toolDigest(definition: JsonObject): Promise<string> {
  const form: Record<string, Json> = {};
  for (const name of PINNED_TOOL_MEMBERS) {
    const member = definition[name];
    if (!Object.hasOwn(definition, name) || member === undefined) continue;
    checkValue(member, MAX_DEPTH - 1);
    form[name] = member;
  }
  return digest("mcp-tool/1", form);
}

/** The digest of a manifest. `tools` are the tools' digests, in any order. */
export async function manifestDigest(id: string, version: string, tools: readonly string[]): Promise<string> {
  return digest("mcp-manifest/1", { id, version, tools: [...tools].sort() });
}

/** Whether a text is a digest: canonical base64url of 32 bytes. */
export function isDigest(text: unknown): text is string {
  return typeof text === "string" && decodeBase64url(text)?.length === 32;
}

async function digest(prefix: string, form: JsonObject): Promise<string> {
  return encodeBase64url(await sha256(prefix, SEPARATOR, canonicalize(form)));
}

const SEPARATOR = new Uint8Array([0]);
const PINNED_TOOL_MEMBERS = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];
