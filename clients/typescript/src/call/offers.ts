/** What a server offers, counted; and which of it the holder of an L0 token is shown, in a few bytes. */

import { decodeBase64url } from "./bytes.js";
import { offersDigest } from "./digest.js";

/** The methods that act, in the order in which what they act on is counted. */
export const ACTIONS = ["tools/call", "prompts/get", "resources/read"] as const;
/** One of them. */
export type Action = (typeof ACTIONS)[number];

/** Which offers are shown, as an L0 token carries it. */
export interface Shown {
  /** Digest of the offers that are meant: about others it says nothing. */
  readonly of: string;
  /** One bit for each offer, the first the lowest of the first byte. */
  readonly bits: Uint8Array;
}

/** Reads the bits of a token; `undefined` where they do not have the form in which a broker writes them. */
export function readBits(text: string): Uint8Array | undefined {
  const bits = text === "" ? new Uint8Array() : decodeBase64url(text);
  if (bits === undefined || bits.length > MAX_BYTES || bits.at(-1) === 0) return undefined;
  return bits;
}

/** Everything that can be asked of a server now: its tools, then its prompts, then the entries of its resources. */
export class Offers {
  readonly #numbers: ReadonlyMap<string, number>;

  private constructor(
    /** What stands for these offers in tokens. */
    readonly digest: string,
    numbers: ReadonlyMap<string, number>,
  ) {
    this.#numbers = numbers;
  }

  /** Counts them. */
  static async of(
    tools: Iterable<string>, prompts: Iterable<string> = [], resources: Iterable<string> = [],
  ): Promise<Offers> {
    const kinds = [tools, prompts, resources].map((names) => [...new Set(names)].sort());
    const keys = kinds.flatMap((names, at) => names.map((name) => key(ACTIONS[at] as Action, name)));
    const [sortedTools = [], sortedPrompts = [], sortedResources = []] = kinds;
    const digest = await offersDigest(sortedTools, sortedPrompts, sortedResources);
    return new Offers(digest, new Map(keys.map((each, number) => [each, number])));
  }

  /** Whether an offer is shown. What says nothing of these offers shows none of them. */
  isShown(shown: Shown | undefined, action: Action, name: string): boolean {
    const number = this.#numbers.get(key(action, name));
    if (number === undefined || shown === undefined || shown.of !== this.digest) return false;
    return ((shown.bits[number >> 3] ?? 0) >> (number & 7) & 1) === 1;
  }
}

function key(action: Action, name: string): string {
  return `${action} ${name}`;
}

const MAX_BYTES = 512;
