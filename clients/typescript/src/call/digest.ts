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
  return digest("mcp-tool/1", pinned(definition, PINNED_TOOL_MEMBERS));
}

/** The digest of a prompt's definition, over exactly the members present among name, title, description, arguments. */
export async function promptDigest(definition: JsonObject): Promise<string> {
  return digest("mcp-prompt/1", pinned(definition, PINNED_PROMPT_MEMBERS));
}

/** The digest of a resource's entry, over exactly the members present among uri, name, title, description. */
export async function resourceDigest(entry: JsonObject): Promise<string> {
  return digest("mcp-resource/1", pinned(entry, PINNED_RESOURCE_MEMBERS));
}

/** The digest of a manifest, of digests in any order. Prompts and resources stand in it only where there are any. */
export async function manifestDigest(
  id: string, version: string, tools: readonly string[], prompts: readonly string[] = [],
  resources: readonly string[] = [],
): Promise<string> {
  const form: Record<string, Json> = { id, version, tools: [...tools].sort() };
  if (prompts.length > 0) form["prompts"] = [...prompts].sort();
  if (resources.length > 0) form["resources"] = [...resources].sort();
  return digest("mcp-manifest/1", form);
}

/** The digest of what a server offers: names, and entries of resources, sorted by their bytes (they are ASCII). */
export async function offersDigest(
  tools: readonly string[], prompts: readonly string[], resources: readonly string[],
): Promise<string> {
  return digest("mcp-offers/1", { tools: [...tools], prompts: [...prompts], resources: [...resources] });
}

/** Whether a text is a digest: canonical base64url of 32 bytes. */
export function isDigest(text: unknown): text is string {
  return typeof text === "string" && decodeBase64url(text)?.length === 32;
}

async function digest(prefix: string, form: JsonObject): Promise<string> {
  return encodeBase64url(await sha256(prefix, SEPARATOR, canonicalize(form)));
}

function pinned(definition: JsonObject, names: readonly string[]): JsonObject {
  const form: Record<string, Json> = {};
  for (const name of names) {
    const member = definition[name];
    if (!Object.hasOwn(definition, name) || member === undefined) continue;
    checkValue(member, MAX_DEPTH - 1);
    form[name] = member;
  }
  return form;
}

const SEPARATOR = new Uint8Array([0]);
const PINNED_TOOL_MEMBERS = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];
const PINNED_PROMPT_MEMBERS = ["name", "title", "description", "arguments"];
const PINNED_RESOURCE_MEMBERS = ["uri", "name", "title", "description"];
