/** The registry record of a server, drafted out of what the server lists. */

import { toolDigest } from "../call/digest.js";
import type { JsonObject } from "../call/json.js";
import type { McpHandler } from "./context.js";
import { discover } from "./discovery.js";

/** What a registry wants to know of a server. */
export interface RecordSettings {
  /** Short id, unique in the registry: lower-case letters, digits, `-`. */
  readonly id: string;
  /** The server's resource URI. */
  readonly resource: string;
  /** The version that is to be reviewed. */
  readonly version: string;
  /** Who answers for it. */
  readonly owner: string;
  /** What it is for. */
  readonly purpose: string;
  /** `production`, `staging`, `development`, … */
  readonly environment: string;
  readonly dataClass: "public" | "internal" | "confidential" | "restricted";
  readonly tenant?: string;
  /** The id by which the broker knows the server's guard; `{id}-guard` unless said. */
  readonly clientId?: string;
  /** How risky each tool is, and what it does to the world. */
  readonly tools: Readonly<Record<string, ToolRisk>>;
}

/** How risky a tool is. */
export interface ToolRisk {
  readonly tier: "low" | "medium" | "high" | "critical";
  readonly effect: "read" | "draft" | "write";
  /** Arguments that satisfy its schema, for `deputize dev` and dry runs. */
  readonly exampleArguments?: JsonObject;
}

/**
 * The registry record of a server (`registry/{id}.json`), for a person to review: its definitions are pinned as the
 * handler lists them now. A tool that `tools` does not name is an error, so that none is forgotten.
 */
export async function registryRecord(handler: McpHandler, settings: RecordSettings): Promise<Record<string, unknown>> {
  const ask = (request: Request) => {
    const handle = typeof handler === "function" ? handler : handler.fetch.bind(handler);
    return Promise.resolve(handle(request, {} as Parameters<typeof handle>[1]));
  };
  const definitions = await discover(ask, settings.resource, "tools");
  const tools = await Promise.all(definitions.map((definition) => toolRecord(definition, settings.tools)));
  const { id, resource, version, owner, purpose, environment, dataClass, tenant = "default" } = settings;
  return {
    id, resource, tenant, version, owner, purpose, environment,
    data_class: dataClass,
    verifier: "guard",
    client_id: settings.clientId ?? `${id}-guard`,
    tools,
  };
}

async function toolRecord(definition: JsonObject, risks: RecordSettings["tools"]): Promise<Record<string, unknown>> {
  const { name } = definition;
  const risk = typeof name === "string" && Object.hasOwn(risks, name) ? risks[name] : undefined;
  if (risk === undefined) throw new Error(`say how risky the tool ${JSON.stringify(name)} is`);
  const { tier, effect, exampleArguments } = risk;
  const example = exampleArguments === undefined ? {} : { example_arguments: exampleArguments };
  return { tier, effect, tool_digest: await toolDigest(definition), definition, ...example };
}
