/** What a guard is told: the broker's snapshot and revocations, and what its server lists. */

import type { ToolCallClaims } from "../call/claims.js";
import { toolDigest } from "../call/digest.js";
import { isObject, type Json, type JsonObject } from "../call/json.js";
import { type Clock, secondsOf } from "../clock.js";
import type { GuardConfig } from "./config.js";
import { Reason } from "./reason.js";
import { type Revocation, Revocations } from "./revocation.js";
import { type PinnedTool, type Snapshot, SnapshotError } from "./snapshot.js";

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

/** A `tools/list` answer as a caller may see it. */
export interface VisibleTools {
  /** The definitions, as they were approved. */
  readonly tools: readonly JsonObject[];
  /** Whether an approved tool stood there as another than the approved one. */
  readonly drifted: boolean;
}

/** What is approved, what is revoked, and what the server's tools are now. */
export class Known {
  private readonly revocations = new Revocations();
  private snapshot: Snapshot | undefined;
  /** The highest version taken, by this process or an earlier one. */
  private highest = 0;
  private live: ReadonlyMap<string, string> = new Map();

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
  async observeTools(definitions: readonly JsonObject[]): Promise<ObservedTools> {
    const digests = new Map<string, string | undefined>();
    for (const definition of definitions.slice(0, MAX_LIVE_TOOLS)) {
      const { name } = definition;
      if (typeof name !== "string") continue;
      const isTwice = digests.has(name);
      digests.set(name, isTwice ? undefined : await toolDigest(definition).catch(() => undefined));
    }
    const observed = { approved: [] as string[], drifted: [] as DriftedTool[], unknown: [] as string[] };
    for (const [name, digest] of digests) {
      const pinned = this.snapshot?.tools.get(name);
      if (pinned === undefined) observed.unknown.push(name);
      else if (pinned.toolDigest === digest) observed.approved.push(name);
      else observed.drifted.push({ name, approved: pinned.toolDigest, live: digest });
    }
    this.live = new Map([...digests].filter((entry): entry is [string, string] => entry[1] !== undefined));
    return observed;
  }

  /**
   * Reduces the `tools` of a `tools/list` answer to what this caller may see: what is approved, stands in this very
   * answer as it was approved, and is not switched off. What is shown are the approved definitions: members that the
   * digest does not cover are not the server's to choose.
   */
  async visibleTools(claims: ToolCallClaims, answered: readonly Json[]): Promise<VisibleTools> {
    const { tools: pinned } = this.current();
    const definitions = answered.filter(isObject);
    const times = new Map<string, number>();
    for (const { name } of definitions) if (typeof name === "string") times.set(name, (times.get(name) ?? 0) + 1);
    const tools: JsonObject[] = [];
    let drifted = false;
    for (const definition of definitions) {
      const { name } = definition;
      const tool = typeof name === "string" ? pinned.get(name) : undefined;
      if (tool === undefined || typeof name !== "string") continue;
      const digest = await toolDigest(definition).catch(() => undefined);
      // A name that stands twice is no definition of anything.
      if (times.get(name) !== 1 || digest !== tool.toolDigest) drifted = true;
      else if (this.isVisible(claims, name)) tools.push(tool.definition);
    }
    return { tools, drifted };
  }

  /** Tokens that look name no tools, so they show every approved one; but not what is switched off. */
  private isVisible(_claims: ToolCallClaims, name: string): boolean {
    return !this.revocations.hasTool(name);
  }

  protected current(): Snapshot {
    if (this.snapshot === undefined) throw new Reason("unavailable", "no snapshot");
    if (this.snapshot.expiresAt <= secondsOf(this.clock)) throw new Reason("unavailable", "snapshot expired");
    return this.snapshot;
  }

  /** The definition that the server gives now is the one that was approved. */
  protected checkLive(name: string, tool: PinnedTool): void {
    if (this.live.size === 0) throw new Reason("unavailable", "the server's tools were not observed yet");
    const digest = this.live.get(name);
    if (digest === undefined) throw new Reason("tool", "the server no longer lists it");
    if (digest !== tool.toolDigest) throw new Reason("tool", "the live definition is not the approved one");
  }

  protected checkRevocation(claims: ToolCallClaims, tool: string | undefined): void {
    this.revocations.check(claims, tool, this.clock.uptimeMs(), this.config.maxRevocationAgeMs);
  }
}

const MAX_LIVE_TOOLS = 2_000;
