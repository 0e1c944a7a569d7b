/** What a guard is told: the broker's snapshot and revocations, and what its server lists. */

import type { ToolCallClaims } from "../call/claims.js";
import { promptDigest, toolDigest } from "../call/digest.js";
import { isObject, type Json, type JsonObject } from "../call/json.js";
import type { Action } from "../call/offers.js";
import { type Clock, secondsOf } from "../clock.js";
import type { GuardConfig } from "./config.js";
import { Reason } from "./reason.js";
import { type Revocation, Revocations } from "./revocation.js";
import { type Pinned, SnapshotError } from "./pin.js";
import { entryOf, pinnedIn, type Snapshot } from "./snapshot.js";

/** A tool that is not what was approved. */
export interface DriftedTool {
  readonly name: string;
  /** Digest of the approved definition. */
  readonly approved: string;
  /** Digest of the live one; absent where it has none, or stands twice. */
  readonly live: string | undefined;
}

/** What a server's live `tools/list` is, compared with what was approved. */
export interface ObservedTools {
  /** Tools that are exactly what was approved: the only ones to be listed. */
  readonly approved: readonly string[];
  /** Tools whose definition is no longer the approved one. */
  readonly drifted: readonly DriftedTool[];
  /** Tools that were never approved. */
  readonly unknown: readonly string[];
}

/** A list as a caller may see it. */
export interface Visible {
  /** The definitions, as they were approved. */
  readonly definitions: readonly JsonObject[];
  /** Whether an approved tool stood there as another than the approved one. */
  readonly drifted: boolean;
}

/** What is approved, what is revoked, and what the server's tools are now. */
export class Known {
  private readonly revocations = new Revocations();
  private snapshot: Snapshot | undefined;
  /** The highest version taken, by this process or an earlier one. */
  private highest = 0;
  /** What the server lists now, by action and name; nothing where it was not looked at yet. */
  private readonly live = new Map<Action, ReadonlyMap<string, string>>();

  protected constructor(
    /** The settings, with every default filled in. */
    readonly config: GuardConfig,
    protected readonly clock: Clock,
  ) {}

  /** Takes a snapshot into use. One that is older than the present one, or of another server, is refused. */
  install(snapshot: Snapshot): void {
    this.take(snapshot);
    this.hearRevocations();
  }

  /**
   * What an earlier process remembered: the highest version that it took, below which nothing is taken any more, and
   * the snapshot, if it still holds. Calls stay refused until the broker was heard.
   */
  recall(highest: number, snapshot?: Snapshot): void {
    this.highest = Math.max(this.highest, highest);
    if (snapshot !== undefined) this.take(snapshot);
  }

  private take(snapshot: Snapshot): void {
    if (snapshot.issuer !== this.config.issuer) throw new SnapshotError("other", "of another broker");
    if (snapshot.resource !== this.config.resource) throw new SnapshotError("other", "of another server");
    if (snapshot.version < this.highest) {
      throw new SnapshotError("older", `version ${snapshot.version} is below ${this.highest}`);
    }
    if (snapshot.version !== this.snapshot?.version) this.revocations.liftStanding();
    // One of the same version may have been made before a revocation of which we have heard, or after.
    for (const revocation of snapshot.revocations) this.revocations.add(revocation, this.clock.uptimeMs());
    this.snapshot = snapshot;
    this.highest = snapshot.version;
  }

  /** A revocation that the broker pushed. */
  revoke(revocation: Revocation): void {
    this.revocations.add(revocation, this.clock.uptimeMs());
    this.hearRevocations();
  }

  /** The broker is there and has nothing new about revocations. Without this word calls stop after a while. */
  hearRevocations(): void {
    this.revocations.hear(this.clock.uptimeMs());
  }

  /** The snapshot in use. */
  get installed(): Snapshot | undefined {
    return this.snapshot;
  }

  /**
   * Takes note of the definitions that the server's `tools/list` gives now. Calls of a tool whose live definition is
   * not the approved one are refused; a name that stands twice counts as changed.
   */
  observeTools(definitions: readonly JsonObject[]): Promise<ObservedTools> {
    return this.observe("tools/call", definitions);
  }

  /** As {@link observeTools}, for what `prompts/list` gives: prompts are refused like tools until they were seen. */
  observePrompts(definitions: readonly JsonObject[]): Promise<ObservedTools> {
    return this.observe("prompts/get", definitions);
  }

  private async observe(action: Action, definitions: readonly JsonObject[]): Promise<ObservedTools> {
    const digests = new Map<string, string | undefined>();
    for (const definition of definitions.slice(0, MAX_LIVE_TOOLS)) {
      const { name } = definition;
      if (typeof name !== "string") continue;
      const isTwice = digests.has(name);
      digests.set(name, isTwice ? undefined : await digestOf(action, definition));
    }
    const observed = { approved: [] as string[], drifted: [] as DriftedTool[], unknown: [] as string[] };
    for (const [name, digest] of digests) {
      const pinned = this.snapshot === undefined ? undefined : pinnedIn(this.snapshot, action, name);
      if (pinned === undefined) observed.unknown.push(name);
      else if (pinned.digest === digest) observed.approved.push(name);
      else observed.drifted.push({ name, approved: pinned.digest, live: digest });
    }
    const listed = [...digests].filter((entry): entry is [string, string] => entry[1] !== undefined);
    this.live.set(action, new Map(listed));
    return observed;
  }

  /**
   * Reduces what the server lists to what this caller may see: what is approved, stands in this very answer as it was
   * approved, and what the caller's token says that he could use. A token that says nothing of that shows nothing. What
   * is shown are the approved definitions: members that the digest does not cover are not the server's to choose.
   */
  async visible(method: string, claims: ToolCallClaims, answered: readonly Json[]): Promise<Visible> {
    const snapshot = this.current();
    const definitions = answered.filter(isObject);
    if (method === "resources/list" || method === "resources/templates/list") {
      return { definitions: this.visibleResources(snapshot, claims, definitions, method), drifted: false };
    }
    const action = method === "tools/list" ? "tools/call" : "prompts/get";
    const times = new Map<string, number>();
    for (const { name } of definitions) if (typeof name === "string") times.set(name, (times.get(name) ?? 0) + 1);
    const visible: JsonObject[] = [];
    let drifted = false;
    for (const definition of definitions) {
      const { name } = definition;
      const pinned = typeof name === "string" ? pinnedIn(snapshot, action, name) : undefined;
      if (pinned === undefined || typeof name !== "string") continue;
      // A name that stands twice is no definition of anything.
      if (times.get(name) !== 1 || (await digestOf(action, definition)) !== pinned.digest) drifted = true;
      else if (this.isVisible(snapshot, claims, action, name)) visible.push(pinned.definition);
    }
    return { definitions: visible, drifted };
  }

  /** Resources that an approved entry names; templates whose every expansion lies below one. */
  private visibleResources(
    snapshot: Snapshot,
    claims: ToolCallClaims,
    definitions: readonly JsonObject[],
    method: string,
  ): JsonObject[] {
    const namedBy = method === "resources/list" ? "uri" : "uriTemplate";
    return definitions.flatMap((live) => {
      const uri = live[namedBy];
      if (typeof uri !== "string") return [];
      const entry = namedBy === "uri" ? entryOf(snapshot, uri) : entryOfTemplate(snapshot, uri);
      const pinned = entry === undefined ? undefined : snapshot.resources.get(entry);
      if (entry === undefined || pinned === undefined) return [];
      return this.isVisible(snapshot, claims, "resources/read", entry) ? [described(namedBy, uri, pinned, live)] : [];
    });
  }

  /** Whether this caller may see something at all: his token says so, and nobody switched it off since. */
  private isVisible({ offers }: Snapshot, { detail }: ToolCallClaims, action: Action, name: string): boolean {
    const isOff = this.revocations.hasEverything() || (action === "tools/call" && this.revocations.hasTool(name));
    return offers.isShown(detail.shown, action, name) && !isOff;
  }

  protected current(): Snapshot {
    if (this.snapshot === undefined) throw new Reason("unavailable", "no snapshot");
    if (this.snapshot.expiresAt <= secondsOf(this.clock)) throw new Reason("unavailable", "snapshot expired");
    return this.snapshot;
  }

  /**
   * The definition that the server gives now is the one that was approved. A resource has none: what stands behind its
   * URI may change.
   */
  protected checkLive(action: Action, name: string, pinned: Pinned | undefined): void {
    if (pinned === undefined) throw new Reason("tool", "not approved");
    if (action === "resources/read") return;
    const live = this.live.get(action);
    // Tools that were approved and are all gone are no list that could be gone by.
    if (live === undefined || (action === "tools/call" && live.size === 0)) {
      throw new Reason("unavailable", "the server's lists were not observed yet");
    }
    const digest = live.get(name);
    if (digest === undefined) throw new Reason("tool", "the server no longer lists it");
    if (digest !== pinned.digest) throw new Reason("tool", "the live definition is not the approved one");
  }

  protected checkRevocation(claims: ToolCallClaims, tool: string | undefined): void {
    this.revocations.check(claims, tool, this.clock.uptimeMs(), this.config.maxRevocationAgeMs);
  }

  /** Whether a call that runs already is revoked, as far as was heard. */
  protected isRevoked(claims: ToolCallClaims, tool: string | undefined): boolean {
    return this.revocations.hasAnyOf(claims, tool);
  }
}

async function digestOf(action: Action, definition: JsonObject): Promise<string | undefined> {
  return (action === "prompts/get" ? promptDigest(definition) : toolDigest(definition)).catch(() => undefined);
}

/** The longest prefix with an entry with which every expansion of a template begins, if that is not switched off. */
function entryOfTemplate({ resources }: Snapshot, template: string): string | undefined {
  if (!/^[!-~]{1,1024}$/.test(template)) return undefined;
  // RFC 6570 §2.1: what stands before the first expression is in every expansion as it stands.
  const [literal = ""] = template.split("{", 1);
  const within = [...resources.keys()].filter((entry) => entry.endsWith("/*") && literal.startsWith(entry.slice(0, -1)));
  // The most exact entry decides, and one that is switched off gives way to no wider one.
  const [longest] = within.sort((one, other) => other.length - one.length);
  return longest !== undefined && resources.get(longest)?.enabled === true ? longest : undefined;
}

/**
 * A resource or template as it is shown; `name` is required (MCP, "Resource"). Of what the server says of it, only media
 * type and size are shown; its texts are the approved ones.
 */
function described(namedBy: string, uri: string, { definition }: Pinned, live: JsonObject): JsonObject {
  const { mimeType, size } = live;
  const shown: Record<string, Json> = { [namedBy]: uri, name: uri };
  for (const name of ["name", "title", "description"]) if (definition[name] !== undefined) shown[name] = definition[name];
  if (typeof mimeType === "string" && MEDIA_TYPE.test(mimeType)) shown["mimeType"] = mimeType;
  if (typeof size === "number" && Number.isSafeInteger(size) && size >= 0) shown["size"] = size;
  return shown;
}

/** The methods whose answers are filtered, and where in the result the list stands. */
export const LISTS: ReadonlyMap<string, string> = new Map([
  ["tools/list", "tools"], ["prompts/list", "prompts"], ["resources/list", "resources"],
  ["resources/templates/list", "resourceTemplates"],
]);
/** RFC 9110 §8.3.1, without parameters but for what a charset needs: nothing that could be read as a sentence. */
const MEDIA_TYPE = /^(?=.{1,128}$)[A-Za-z0-9!#$&^_.+;=-]+\/[A-Za-z0-9!#$&^_.+/;=-]*$/;
const MAX_LIVE_TOOLS = 2_000;
