/** Binding levels: how narrowly a tool-call token is tied to its call. */

/**
 * What a token is good for: `L0` one server (discovery and listing), `L1` one tool, `L2` one tool with every argument
 * constrained, `L3` one call: this tool, these exact arguments, once.
 */
export type Level = "L0" | "L1" | "L2" | "L3";

/** Reads a level. */
export function isLevel(value: unknown): value is Level {
  return typeof value === "string" && LEVELS.includes(value as Level);
}

/** Whether `level` binds at least as tightly as `least`. */
export function isAtLeast(level: Level, least: Level): boolean {
  return LEVELS.indexOf(level) >= LEVELS.indexOf(least);
}

const LEVELS: readonly Level[] = ["L0", "L1", "L2", "L3"];
