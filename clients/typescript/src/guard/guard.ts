/** The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept. */

import { type AwsCredentialsProvider, type AwsIdentity, Kept } from "../aws/credentials.js";
import type { AwsRequest } from "../aws/request.js";
import { type GrantedDetail, levelOf, type ToolCallClaims } from "../call/claims.js";
import { checkConstraints, ConstraintError } from "../call/constraints.js";
import { isAtLeast } from "../call/level.js";
import { SchemaError } from "../call/schema.js";
import { ExchangeError } from "../client/errors.js";
import { wellKnown } from "../client/metadata.js";
import { type Clock, secondsOf, systemClock } from "../clock.js";
import { ClockWatch } from "./clocks.js";
import { type GuardConfig, type GuardSettings, resolveGuardSettings } from "./config.js";
import {
  checkAgreement, checkMediaType, checkMirroredParams, Fields, type IncomingCall, mirroredHeaders,
} from "./headers.js";
import { Known, LISTS } from "./known.js";
import { type Call, digestOf, isSteered, type Message, readMessage, toolOf } from "./message.js";
import { NonceMaker } from "./nonce.js";
import { OnceSet } from "./once.js";
import { type Possessed, type Proofs, verifyPossession } from "./possession.js";
import { Reason } from "./reason.js";
import { type Needed, NEEDED_FOR_LISTING, neededForCall, Refusal } from "./refusal.js";
import type { Pinned } from "./pin.js";
import { pinnedIn, type Snapshot } from "./snapshot.js";
import { Uses } from "./uses.js";
import {
  BY_THE_GUARD, type Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream,
} from "./verified.js";

/** What a guard asks of the outside, and nothing more. */
export interface Outside {
  /** Asks the maker of an L3 token whether this is its first use. Asked after every other check. */
  redeem(token: string): Promise<"redeemed" | "already_used" | "revoked" | "unavailable">;
  /**
   * Whether the server would take this call now. Asked before a token is redeemed, so that a call which cannot run does
   * not spend it. Without it, every call is taken.
   */
  admit?(claims: ToolCallClaims): Promise<"ready" | "unavailable" | { readonly retryAfterSeconds: number }>;
  /** Asks for the AWS credentials of a call. Without it, calls have none. */
  awsCredentials?(request: AwsRequest): Promise<AwsIdentity>;
}

/** Stands before one MCP server and lets through what was granted, and nothing else. */
export class Guard extends Known {
  private readonly uses: Uses;
  private readonly clocks = new ClockWatch();
  private readonly startedSeconds: number;

  private constructor(
    config: GuardConfig,
    private readonly outside: Outside,
    private readonly proofs: Proofs,
    clock: Clock,
  ) {
    super(config, clock);
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

  /**
   * Verifies one request. Nothing is consumed before everything that can be checked without consuming holds.
   *
   * @throws {Refusal} what to answer instead.
   */
  async verify(incoming: IncomingCall): Promise<Verified> {
    return this.admit(await this.examine(incoming));
  }

  /**
   * Checks a request. Its proof is used up, its token is not: between this and {@link admit} whoever embeds a guard does
   * what only it can: looks at the server's tools, now that the sender is known, and whether the session is the caller's.
   *
   * @throws {Refusal} what to answer instead.
   */
  async examine(incoming: IncomingCall): Promise<Examined> {
    const context: Context = { needed: undefined };
    return this.orRefusal(() => this.check(incoming, context), context);
  }

  /**
   * Checks that the tool is still what was approved, asks whether the server takes the call, and spends the token.
   *
   * @throws {Refusal} what to answer instead.
   */
  async admit(examined: Examined): Promise<Verified> {
    await this.orRefusal(() => this.consume(examined), examined);
    const { claims, message, token, callDigest, mirrored } = examined;
    const parts = { claims, message: message.whole, nextNonce: await this.nextNonce(), token };
    if (message.isResponse) return new VerifiedResponse(BY_THE_GUARD, parts);
    const { call, method } = message;
    // INVARIANT: `check` gives each call its digest; without one nothing runs.
    if (call === undefined || callDigest === undefined) return new VerifiedListing(BY_THE_GUARD, parts, method);
    const { action, name, arguments: args } = call;
    const verified = { action, name, arguments: args, callDigest, mirrored };
    return new VerifiedCall(BY_THE_GUARD, parts, verified, this.awsOf(call, token, claims));
  }

  /** Where the credentials of a call come from. Nothing is asked before somebody wants them. */
  private awsOf(call: Call, token: string, claims: ToolCallClaims): AwsCredentialsProvider | undefined {
    const ask = this.outside.awsCredentials?.bind(this.outside);
    if (ask === undefined) return undefined;
    const { arguments: args, inputResponses, requestState } = call;
    // As text: what a tool makes of its arguments does not change what is asked.
    const said = JSON.stringify({ token, arguments: args, inputResponses, requestState });
    const check = () => {
      if (!this.isRevoked(claims, toolOf(call))) return;
      throw new ExchangeError(REVOKED, "stop: nothing more is to be done for this call");
    };
    return new Kept(() => ask(JSON.parse(said) as AwsRequest), this.clock, check).provider;
  }

  /**
   * Verifies a request without a body: `GET`, which listens to the server's messages, or `DELETE`, which ends a session
   * (MCP 2025-11-25, transports). Whether the session is the caller's is for whoever keeps sessions.
   *
   * @throws {Refusal} what to answer instead.
   */
  async verifyStream(incoming: IncomingCall): Promise<VerifiedStream> {
    const { method, body } = incoming;
    const context: Context = { needed: undefined };
    return this.orRefusal(async () => {
      if (method !== "GET" && method !== "DELETE") throw new Reason("http_method");
      if (body.length > 0) throw new Reason("message", "a GET or DELETE has no body");
      const { token, claims } = await this.possessed(incoming, new Fields(incoming.headers), this.decidable());
      context.needed = NEEDED_FOR_LISTING;
      this.checkListing(claims);
      await this.ask(claims);
      return new VerifiedStream(BY_THE_GUARD, { claims, message: {}, nextNonce: await this.nextNonce(), token });
    }, context);
  }

  /** Why nothing more may be heard, where what the token stood for was revoked, or nothing can be said of that. */
  revoked(claims: ToolCallClaims, tool: string | undefined): Reason | undefined {
    try {
      this.checkRevocation(claims, tool);
      return undefined;
    } catch (error) {
      if (error instanceof Reason) return error;
      throw error;
    }
  }

  /** Monotonic time, in milliseconds. */
  uptimeMs(): number {
    return this.clock.uptimeMs();
  }

  /** An id that never comes twice. */
  uniqueId(): string {
    return this.clock.uniqueId();
  }

  /** How a request is refused for a reason of the caller's own. */
  async refusal(reason: Reason, needed?: Needed): Promise<Refusal> {
    return new Refusal(reason, this.config, await this.nextNonce(), needed);
  }

  private nextNonce(): Promise<string> {
    return this.proofs.nonces.make(this.clock.uptimeMs());
  }

  private async orRefusal<T>(work: () => Promise<T>, context: Context): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof Reason) throw await this.refusal(error, context.needed);
      throw error;
    }
  }

  private async check(incoming: IncomingCall, context: Context): Promise<Examined> {
    const fields = new Fields(incoming.headers);
    const message = this.read(incoming, fields);
    const snapshot = this.decidable();
    const asked = message.call;
    // Only arguments of tools are mirrored (MCP 2026-07-28, custom headers).
    const inputSchema = snapshot.tools.get(toolOf(asked) ?? "")?.definition["inputSchema"];
    if (asked !== undefined) checkMirroredParams(fields, inputSchema, asked.arguments);
    const { token, claims } = await this.possessed(incoming, fields, snapshot);
    if (asked === undefined) {
      context.needed = NEEDED_FOR_LISTING;
      this.checkListing(claims);
      checkLists(message.method, claims, snapshot);
      return { claims, message, token, callDigest: undefined, pinned: undefined, mirrored: [], ...context };
    }
    const pinned = pinnedIn(snapshot, asked.action, asked.name);
    if (pinned === undefined) throw new Reason("tool", "not approved");
    const callDigest = await this.checkGranted(asked, claims, pinned, context);
    this.checkRevocation(claims, toolOf(asked));
    const mirrored = mirroredHeaders(inputSchema, asked.arguments);
    return { claims, message, token, callDigest, pinned, mirrored, ...context };
  }

  /** What calls are decided by. While the clocks disagree, no time in a token means what it says. */
  private decidable(): Snapshot {
    if (!this.clocks.agree(this.clock.nowMs(), this.clock.uptimeMs())) {
      throw new Reason("unavailable", "the clocks disagree");
    }
    return this.current();
  }

  /** A token of this server's tenant whose sender holds its key. */
  private async possessed(incoming: IncomingCall, fields: Fields, snapshot: Snapshot): Promise<Possessed> {
    const { method, clientCertificate } = incoming;
    const [nowSeconds, uptimeMs] = [secondsOf(this.clock), this.clock.uptimeMs()];
    const sender = { method, fields, clientCertificate, nowSeconds, uptimeMs };
    const possessed = await verifyPossession(sender, this.config, snapshot.keys, this.proofs);
    if (possessed.claims.tenant !== snapshot.tenant) throw new Reason("token", "of another tenant");
    return possessed;
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

  /** A token of level L0, and only such a token, looks without calling. */
  private checkListing(claims: ToolCallClaims): void {
    if (levelOf(claims.detail) !== "L0") throw new Reason("scope", "a token for a call does not list");
    this.checkRevocation(claims, undefined);
  }

  /** Whether the grant is for this call of this tool, as it was approved. */
  private async checkGranted(
    asked: Call,
    claims: ToolCallClaims,
    tool: Pinned,
    context: Context,
  ): Promise<string> {
    const { detail } = claims;
    const granted = levelOf(detail);
    const level = isAtLeast(granted, tool.leastLevel) ? granted : tool.leastLevel;
    context.needed = neededForCall(this.config.resource, asked, level);
    checkTarget(asked, detail, tool);
    checkArguments(asked, tool);
    const digest = await digestOf(asked);
    checkBinding(asked, detail, digest);
    return digest;
  }

  /** Everything that says no without being asked to decide; last of all the token is used. */
  private async consume({ claims, message, token, pinned }: Examined): Promise<void> {
    const { call } = message;
    if (call !== undefined) this.checkLive(call.action, call.name, pinned);
    await this.ask(claims);
    const { maxUses } = claims.detail;
    if (levelOf(claims.detail) === "L3") await this.redeem(token);
    else if (maxUses !== undefined) this.countUse(claims, maxUses);
    // Since the request was looked at, time has passed: what was pushed meanwhile still counts.
    this.checkRevocation(claims, toolOf(call));
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
    const untilMs = uptimeMs + remainingSeconds * 1000;
    this.uses.take({ jti: claims.jti, owner: claims.clientId, maxUses, untilMs }, uptimeMs);
  }

  private async ask(claims: ToolCallClaims): Promise<void> {
    const admission = (await this.outside.admit?.(claims)) ?? "ready";
    if (admission === "ready") return;
    if (admission === "unavailable") throw new Reason("unavailable", "the server is down");
    throw new Reason("limited", undefined, admission.retryAfterSeconds);
  }
}

/** A request that may run, but for what is asked last: the server's health, and the one use of its token. */
export interface Examined {
  readonly claims: ToolCallClaims;
  readonly message: Message;
  readonly token: string;
  /** Digest of the call; absent where none is made. */
  readonly callDigest: string | undefined;
  /** What was approved under the name that is called; absent where no call is made. */
  readonly pinned: Pinned | undefined;
  /** Header fields that mirror arguments. */
  readonly mirrored: readonly (readonly [name: string, value: string])[];
  readonly needed: Needed | undefined;
}

/** What becomes known on the way. */
interface Context {
  needed: Needed | undefined;
}

/** What a token says of lists is about what is offered now; else it has to be made anew. */
function checkLists(method: string, { detail }: ToolCallClaims, { offers }: Snapshot): void {
  if (detail.shown !== undefined && detail.shown.of !== offers.digest && LISTS.has(method)) {
    throw new Reason("token", "it says what lists showed of another state of the registry");
  }
}

/** Method, name, level and definition are those of the grant. */
function checkTarget(asked: Call, detail: GrantedDetail, tool: Pinned): void {
  if (detail.actions.length !== 1 || detail.actions[0] !== asked.action) {
    throw new Reason("scope", "the token is for another method");
  }
  // A URI is compared as it stands.
  if (detail.identifier !== asked.name) throw new Reason("scope", "the token is for another tool, prompt or resource");
  if (!isAtLeast(levelOf(detail), tool.leastLevel)) throw new Reason("scope", "the tool needs a tighter binding");
  const expected = (action: string) => (asked.action === action ? tool.digest : undefined);
  if (detail.toolDigest !== expected("tools/call") || detail.promptDigest !== expected("prompts/get")) {
    throw new Reason("tool", "the token is for another definition");
  }
}

function checkArguments(asked: Call, tool: Pinned): void {
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

const REVOKED = {
  status: 400, error: "invalid_request", description: "what the call stands on was revoked", decisionId: undefined,
} as const;
