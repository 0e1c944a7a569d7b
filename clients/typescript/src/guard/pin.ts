/** Each tool, prompt and resource of a snapshot, checked and compiled. */

import { promptDigest, resourceDigest, toolDigest } from "../call/digest.js";
import { isObject, type Json, type JsonObject } from "../call/json.js";
import { isLevel, type Level } from "../call/level.js";
import { argumentsSchema } from "../call/prompt.js";
import { isEntry } from "../call/resource.js";
import { PinnedSchema } from "../call/schema.js";

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

/** A tool, prompt or resource as calls are held against it. */
export interface Pinned {
  /** As approved; of a resource, what is shown of it. */
  readonly definition: JsonObject;
  readonly digest: string;
  readonly schema: PinnedSchema;
  /** The least level of its tokens. */
  readonly leastLevel: Level;
  /** A resource that is switched off takes what it names out of a wider entry. */
  readonly enabled: boolean;
}

interface Kind {
  /** The member of each that is digested and shown. */
  readonly describedBy: string;
  readonly namedBy: string;
  digest(definition: JsonObject): Promise<string>;
  /** The member with the digest that was approved. */
  readonly statedDigest?: string;
  readonly others?: readonly string[];
  schema(definition: JsonObject): Json | undefined;
}

/** What a snapshot pins, by the member that holds it. */
export const KINDS = {
  tools: {
    describedBy: "definition", namedBy: "name", statedDigest: "tool_digest", digest: toolDigest,
    schema: (definition) => definition["inputSchema"],
  },
  prompts: {
    describedBy: "definition", namedBy: "name", statedDigest: "prompt_digest", digest: promptDigest,
    schema: argumentsSchema,
  },
  resources: {
    describedBy: "shown", namedBy: "uri", others: ["enabled"], digest: resourceDigest,
    schema: ({ uri }) => {
      if (typeof uri !== "string" || !isEntry(uri)) throw new Error("its URI names no resource");
      // A resource takes no arguments.
      return argumentsSchema({});
    },
  },
} satisfies Record<string, Kind>;

/** Checks and compiles all of a kind. */
export async function pinAll(documents: Json | undefined, member: keyof typeof KINDS): Promise<Map<string, Pinned>> {
  if (!Array.isArray(documents) || documents.length > MAX_OF_A_KIND) throw malformed(member);
  const pinned = new Map<string, Pinned>();
  for (const document of documents as Json[]) {
    const [name, one] = await pin(document, KINDS[member], member);
    if (pinned.has(name)) throw broken(name, "stands twice");
    pinned.set(name, one);
  }
  return pinned;
}

async function pin(document: Json, kind: Kind, member: string): Promise<[name: string, pinned: Pinned]> {
  const { describedBy, namedBy, statedDigest, others = [] } = kind;
  const members = [describedBy, "least_level", "tier", ...others, ...(statedDigest === undefined ? [] : [statedDigest])];
  if (!isObject(document) || !Object.keys(document).every((name) => members.includes(name))) throw malformed(member);
  const { [describedBy]: definition, least_level: leastLevel, tier, enabled = others.length === 0 } = document;
  const name = isObject(definition) ? definition[namedBy] : undefined;
  if (!isObject(definition) || typeof name !== "string" || typeof tier !== "string") throw malformed(member);
  if (typeof enabled !== "boolean" || (others.length > 0 && document["enabled"] === undefined)) throw malformed(member);
  if (name === "" || !isLevel(leastLevel) || leastLevel === "L0") throw broken(name, "it needs a name and a level above L0");
  const digest = await kind.digest(definition).catch(() => undefined);
  if (digest === undefined || (statedDigest !== undefined && digest !== document[statedDigest])) {
    throw broken(name, "its definition is not the one of its digest");
  }
  try {
    return [name, { definition, digest, schema: PinnedSchema.compile(kind.schema(definition)), leastLevel, enabled }];
  } catch (error) {
    throw broken(name, error instanceof Error ? error.message : "its schema is unusable");
  }
}

/** A snapshot that does not have its form. */
export function malformed(what: string): SnapshotError {
  return new SnapshotError("malformed", `malformed: ${what}`);
}

function broken(name: string, problem: string): SnapshotError {
  return new SnapshotError("tool", `${JSON.stringify(name.slice(0, MAX_SHOWN))}: ${problem}`);
}

const MAX_OF_A_KIND = 500;
const MAX_SHOWN = 128;
