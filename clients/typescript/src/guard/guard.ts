/** The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept. */

import { type GrantedDetail, levelOf, type ToolCallClaims } from "../call/claims.js";
import { checkConstraints, ConstraintError } from "../call/constraints.js";
import { toolDigest } from "../call/digest.js";
import type { JsonObject } from "../call/json.js";
import { isAtLeast } from "../call/level.js";
import { SchemaError } from "../call/schema.js";
import { wellKnown } from "../client/metadata.js";
import { type Clock, secondsOf, systemClock } from "../clock.js";
import { ClockWatch } from "./clocks.js";
import { type GuardConfig, type GuardSettings, resolveGuardSettings } from "./config.js";
import { checkAgreement, checkMediaType, checkMirroredParams, Fields, type IncomingCall } from "./headers.js";
import { type Call, digestOf, isSteered, type Message, readMessage } from "./message.js";
import { NonceMaker } from "./nonce.js";
import { OnceSet } from "./once.js";
import { type Proofs, verifyPossession } from "./possession.js";
import { Reason } from "./reason.js";
import { type Needed, NEEDED_FOR_LISTING, neededForCall, Refusal } from "./refusal.js";
import { type Revocation, Revocations } from "./revocation.js";
import { type PinnedTool, type Snapshot, SnapshotError } from "./snapshot.js";
import { Uses } from "./uses.js";
import { BY_THE_GUARD, type Verified, VerifiedCall, VerifiedListing } from "./verified.js";

/** What a guard asks of the outside, and nothing more. */
export interface Outside {
  /** Asks the maker of an L3 token whether this is its first use. Asked after every other check. */
  redeem(token: string): Promise<"redeemed" | "already_used" | "revoked" | "unavailable">;
  /**
   * Whether the server would take this call now. Asked before a token is redeemed, so that a call which cannot run does
   * not spend it. Without it, every call is taken.
   */
  admit?(claims: ToolCallClaims): Promise<"ready" | "unavailable" | { readonly retryAfterSeconds: number }>;
}

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

/** Stands before one MCP server and lets through what was granted, and nothing else. */
export class Guard {
  private readonly revocations = new Revocations();
  private readonly uses: Uses;
  private readonly clocks = new ClockWatch();
  private readonly startedSeconds: number;
  private snapshot: Snapshot | undefined;
  /** The highest version taken, by this process or an earlier one. */
  private highest = 0;
  private live: ReadonlyMap<string, string> = new Map();

  private constructor(
    /** The settings, with every default filled in. */
    readonly config: GuardConfig,
    private readonly outside: Outside,
    private readonly proofs: Proofs,
    private readonly clock: Clock,
  ) {
    this.uses = new Uses(config.countedTokens);
    this.startedSeconds = secondsOf(clock);
  }

  /**
   * A guard that refuses every call with 503 until it has a snapshot ({@link install}) and has seen the server's tools
   * ({@link observeTools}).
   */
  static async create(settings: GuardSettings, outside: Outside, clock: Clock = systemClock): Promise<Guard> {
    const config = resolveGuardSettings(settings, wellKnown(settings.resource, "oauth-protected-resource"));
    const nonces = await NonceMaker.create(config.name, config.nonceLifetimeMs);
    const seen = new OnceSet(config.nonceLifetimeMs + PROOF_MARGIN_MS, config.proofCapacity);
    return new Guard(config, outside, { nonces, seen }, clock);
  }

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

  /** Whether a definition, as the server just listed it, is an approved one: the only kind to be listed. */
  async isApproved(definition: JsonObject): Promise<boolean> {
    const { name } = definition;
    const pinned = typeof name === "string" ? this.snapshot?.tools.get(name) : undefined;
    if (pinned === undefined) return false;
    return (await toolDigest(definition).catch(() => undefined)) === pinned.toolDigest;
  }

  /**
   * Verifies one request. Nothing is consumed before everything that can be checked without consuming holds.
   *
   * @throws {Refusal} what to answer instead.
   */
  async verify(incoming: IncomingCall): Promise<Verified> {
    const context: Context = { needed: undefined };
    try {
      return await this.check(incoming, context);
    } catch (error) {
      if (error instanceof Reason) throw await this.refusal(error, context.needed);
      throw error;
    }
  }

  /** How a request is refused for a reason of the caller's own. */
  async refusal(reason: Reason, needed?: Needed): Promise<Refusal> {
    return new Refusal(reason, this.config, await this.proofs.nonces.make(this.clock.uptimeMs()), needed);
  }

  private async check(incoming: IncomingCall, context: Context): Promise<Verified> {
    const { method, clientCertificate } = incoming;
    const fields = new Fields(incoming.headers);
    const message = this.read(incoming, fields);
    // While they disagree, no time in a token means what it says.
    const [nowMs, uptimeMs] = [this.clock.nowMs(), this.clock.uptimeMs()];
    if (!this.clocks.agree(nowMs, uptimeMs)) throw new Reason("unavailable", "the clocks disagree");
    const snapshot = this.current();
    const asked = message.call;
    if (asked !== undefined) {
      const inputSchema = snapshot.tools.get(asked.name)?.definition["inputSchema"];
      checkMirroredParams(fields, inputSchema, asked.arguments);
    }
    const nowSeconds = Math.floor(nowMs / 1000);
    const sender = { method, fields, clientCertificate, nowSeconds, uptimeMs };
    const { token, claims } = await verifyPossession(sender, this.config, snapshot.keys, this.proofs);
    if (claims.tenant !== snapshot.tenant) throw new Reason("token", "of another tenant");
    if (incoming.isSessionOf?.(claims) === false) throw new Reason("session");
    const nextNonce = await this.proofs.nonces.make(uptimeMs);
    const parts = { claims, message: message.whole, nextNonce, token };
    if (asked === undefined) {
      context.needed = NEEDED_FOR_LISTING;
      await this.checkListing(claims);
      return new VerifiedListing(BY_THE_GUARD, parts, message.method);
    }
    const callDigest = await this.checkGranted(asked, claims, snapshot, context);
    await this.consume(asked.name, token, claims);
    return new VerifiedCall(BY_THE_GUARD, parts, { tool: asked.name, arguments: asked.arguments, callDigest });
  }

  /** Size, strict JSON, and headers that agree with it. */
  private read(incoming: IncomingCall, fields: Fields): Message {
    if (incoming.body.length > this.config.maxBodyBytes) throw new Reason("too_large");
    if (incoming.method !== "POST") throw new Reason("http_method");
    checkMediaType(fields);
    const message = readMessage(incoming.body);
    checkAgreement(fields, message);
    return message;
  }

  private current(): Snapshot {
    if (this.snapshot === undefined) throw new Reason("unavailable", "no snapshot");
    if (this.snapshot.expiresAt <= secondsOf(this.clock)) throw new Reason("unavailable", "snapshot expired");
    return this.snapshot;
  }

  /** A token of level L0, and only such a token, looks without calling. */
  private async checkListing(claims: ToolCallClaims): Promise<void> {
    if (levelOf(claims.detail) !== "L0") throw new Reason("scope", "a token for a call does not list");
    this.checkRevocation(claims, undefined);
    await this.admit(claims);
  }

  /** Whether the grant is for this call of this tool, as it was approved and as it is now. */
  private async checkGranted(
    asked: Call,
    claims: ToolCallClaims,
    snapshot: Snapshot,
    context: Context,
  ): Promise<string> {
    const { detail } = claims;
    const tool = snapshot.tools.get(asked.name);
    if (tool === undefined) throw new Reason("tool", "not approved");
    const granted = levelOf(detail);
    const level = isAtLeast(granted, tool.leastLevel) ? granted : tool.leastLevel;
    context.needed = neededForCall(this.config.resource, asked.name, level, asked.arguments);
    checkTarget(asked, detail, tool);
    this.checkLive(asked.name, tool);
    checkArguments(asked, tool);
    const digest = await digestOf(asked);
    checkBinding(asked, detail, digest);
    return digest;
  }

  /** The definition that the server gives now is the one that was approved. */
  private checkLive(name: string, tool: PinnedTool): void {
    if (this.live.size === 0) throw new Reason("unavailable", "the server's tools were not observed yet");
    const digest = this.live.get(name);
    if (digest === undefined) throw new Reason("tool", "the server no longer lists it");
    if (digest !== tool.toolDigest) throw new Reason("tool", "the live definition is not the approved one");
  }

  /** Everything that says no without being asked to decide; last of all the token is used. */
  private async consume(tool: string, token: string, claims: ToolCallClaims): Promise<void> {
    this.checkRevocation(claims, tool);
    await this.admit(claims);
    const { maxUses } = claims.detail;
    if (levelOf(claims.detail) === "L3") await this.redeem(token);
    else if (maxUses !== undefined) this.countUse(claims, maxUses);
    // The answers took their time: what was pushed meanwhile still counts.
    this.checkRevocation(claims, tool);
  }

  private async redeem(token: string): Promise<void> {
    switch (await this.outside.redeem(token)) {
      case "redeemed":
        return;
      case "already_used":
        throw new Reason("used_up");
      case "revoked":
        throw new Reason("revoked");
      default:
        throw new Reason("unavailable", "the token cannot be redeemed now");
    }
  }

  private countUse(claims: ToolCallClaims, maxUses: number): void {
    const { leewaySeconds } = this.config;
    // What was counted before a restart is forgotten: tokens from then are refused rather than counted anew.
    if (claims.iat < this.startedSeconds + leewaySeconds) throw new Reason("token", "issued before this guard started");
    const uptimeMs = this.clock.uptimeMs();
    const remainingSeconds = Math.max(0, claims.exp - secondsOf(this.clock)) + 2 * leewaySeconds;
    this.uses.take(claims.jti, maxUses, uptimeMs, uptimeMs + remainingSeconds * 1000);
  }

  private checkRevocation(claims: ToolCallClaims, tool: string | undefined): void {
    this.revocations.check(claims, tool, this.clock.uptimeMs(), this.config.maxRevocationAgeMs);
  }

  private async admit(claims: ToolCallClaims): Promise<void> {
    const admission = (await this.outside.admit?.(claims)) ?? "ready";
    if (admission === "ready") return;
    if (admission === "unavailable") throw new Reason("unavailable", "the server is down");
    throw new Reason("limited", undefined, admission.retryAfterSeconds);
  }
}

/** What becomes known on the way. */
interface Context {
  needed: Needed | undefined;
}

/** Method, name, level and definition are those of the grant. */
function checkTarget(asked: Call, detail: GrantedDetail, tool: PinnedTool): void {
  if (detail.actions.length !== 1 || detail.actions[0] !== "tools/call") {
    throw new Reason("scope", "the token is not for calling tools");
  }
  if (detail.identifier !== asked.name) throw new Reason("scope", "the token is for another tool");
  if (!isAtLeast(levelOf(detail), tool.leastLevel)) throw new Reason("scope", "the tool needs a tighter binding");
  if (detail.toolDigest !== tool.toolDigest) throw new Reason("tool", "the token is for another definition");
}

function checkArguments(asked: Call, tool: PinnedTool): void {
  try {
    tool.schema.validate(asked.arguments);
  } catch (error) {
    throw error instanceof SchemaError ? new Reason("arguments", error.message) : error;
  }
}

/** The arguments are those of the grant, as tightly as it says. */
function checkBinding(asked: Call, detail: GrantedDetail, callDigest: string): void {
  if (detail.callDigest !== undefined) {
    if (detail.callDigest !== callDigest) throw new Reason("call_differs");
    return;
  }
  if (detail.constraints === undefined) return;
  // Constraints say nothing about the responses that steer a retry.
  if (isSteered(asked)) throw new Reason("scope", "a steered retry needs a token for this one call");
  try {
    checkConstraints(detail.constraints, asked.arguments);
  } catch (error) {
    throw error instanceof ConstraintError ? new Reason("constraints", error.message) : error;
  }
}

const PROOF_MARGIN_MS = 10_000;
const MAX_LIVE_TOOLS = 2_000;
