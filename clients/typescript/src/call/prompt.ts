/**
 * A prompt's arguments as a schema: prompts list names of what they take (MCP, "Prompts"), and all of it is text. So a
 * prompt's arguments are held against what was approved as a tool's are.
 */

import { isObject, type Json, type JsonObject } from "./json.js";

/** The schema of the arguments that a prompt's definition lists. Throws where the list can be read in two ways. */
export function argumentsSchema(definition: JsonObject): JsonObject {
  const { arguments: listed = [] } = definition;
  if (!Array.isArray(listed) || listed.length > MAX_ARGUMENTS) throw new Error("has arguments that are no list, or more than 100");
  const properties: Record<string, Json> = Object.create(null) as Record<string, Json>;
  const required: string[] = [];
  for (const argument of listed as Json[]) {
    const { name, required: isRequired = false } = isObject(argument) ? argument : {};
    if (typeof name !== "string" || name in properties) throw new Error("has an argument without a name, or two of one name");
    if (typeof isRequired !== "boolean") throw new Error("has an argument whose `required` is neither true nor false");
    properties[name] = { type: "string" };
    if (isRequired) required.push(name);
  }
  const schema = { type: "object", properties, additionalProperties: false };
  return required.length === 0 ? schema : { ...schema, required };
}

const MAX_ARGUMENTS = 100;
