/**
 * The link of a guard to its broker: it learns what is approved and what is revoked, and redeems tokens.
 *
 * The broker pushes (`GET {issuer}/guard/events`). While the link is down the guard goes on with what it knows, for a
 * minute; then it stops calls.
 */

import type { JWK } from "jose";
import { type Json, type JsonObject, parseObject, parseValue, wholeNumberAt } from "../call/json.js";
import { KeySet } from "../call/keys.js";
import { readRefusal } from "../client/answer.js";
import { type ClientSettings, DeputizeClient } from "../client/client.js";
import { ConfigurationError, ExchangeError, ProtocolError, UnreachableError } from "../client/errors.js";
import { withDeadline } from "../client/deadline.js";
import { checkUrl } from "../client/metadata.js";
import { type FetchLike, readBounded } from "../client/transport.js";
import { type Clock, secondsOf, systemClock } from "../clock.js";
import type { GuardSettings } from "../guard/config.js";
import { Guard, type Outside } from "../guard/guard.js";
import { readRevocation } from "../guard/revocation.js";
import { openSnapshot } from "../guard/snapshot.js";
import { readEvents } from "./events.js";
import type { SnapshotMemory } from "./memory.js";
import { type GuardEvent, Reporter } from "./reporter.js";

/** Settings of a guard that is linked to its broker. */
export interface LinkedGuardSettings extends GuardSettings {
  /** The id by which the broker knows this server. */
  readonly clientId: string;
  /** The key with which it authenticates, as a private JWK. */
  readonly privateKey: JWK;
  /**
   * What the broker seals AWS credentials to, as a private JWK: the other half of this server's key with `use: "enc"`
   * there. Where it is given, credentials that are not sealed are refused.
   */
  readonly encryptionKey?: NonNullable<ClientSettings["encryptionKey"]>;
  /** The broker's snapshot keys: a JWKS, or its `keys`. What they did not sign is not believed. */
  readonly snapshotKeys: { readonly keys: readonly JWK[] } | readonly JWK[];
  /** Whether the server would take a call now; without it, every call is taken. */
  readonly admit?: NonNullable<Outside["admit"]>;
  /** Told what goes wrong with the link. By default a warning on the console. */
  readonly onProblem?: (problem: Error) => void;
  /**
   * Keeps the last snapshot over restarts, so that a process never takes an older one than its predecessor had:
   * `snapshotFile(path)`, or a store of one's own.
   */
  readonly memory?: SnapshotMemory;
  /** How long {@link linkGuard} waits for the first snapshot; 10 s. */
  readonly startTimeoutMs?: number;
  /** Another `fetch`, for example with certificates of one's own. */
  readonly fetch?: FetchLike;
  /** Another source of time and ids. */
  readonly clock?: Clock;
}

/** A guard that is linked to its broker. */
export interface LinkedGuard {
  /** Verifies requests. */
  readonly guard: Guard;
  /** The server as a client of the broker: for its own next hops. */
  readonly client: DeputizeClient;
  /** Tells the broker what was seen. */
  report(event: GuardEvent): void;
  /** Ends the link. The guard stops calls a minute later. */
  close(): Promise<void>;
}

/**
 * Makes a guard and links it to its broker. Waits until the guard knows what is approved.
 *
 * @throws {@link ConfigurationError}: the settings cannot be used.
 * @throws {@link ExchangeError}: the broker does not accept this server.
 * @throws `SnapshotError`: what the broker sends is not signed by `snapshotKeys`, or about another server.
 * @throws {@link UnreachableError}: there is no broker within `startTimeoutMs`.
 */
export async function linkGuard(settings: LinkedGuardSettings): Promise<LinkedGuard> {
  checkUrl(settings.resource, "the resource");
  checkUrl(settings.publicUrl, "the public URL");
  const { snapshotKeys, clock = systemClock } = settings;
  const jwks = Array.isArray(snapshotKeys) ? { keys: snapshotKeys } : snapshotKeys;
  const signers = await KeySet.fromJwks(jwks).catch((cause: unknown) => {
    throw new ConfigurationError("the snapshot keys cannot be used", "give the broker's public JWKS", { cause });
  });
  const client = await DeputizeClient.create({ timeoutMs: REQUEST_MS, ...settings });
  const redeem: Outside["redeem"] = (token) => client.redeem(token).catch(() => "unavailable" as const);
  const { admit } = settings;
  const awsCredentials: Outside["awsCredentials"] = (request) => client.awsCredentials(request);
  const outside: Outside = { redeem, awsCredentials, ...(admit === undefined ? {} : { admit }) };
  const guard = await Guard.create(settings, outside, clock);
  const link = new Link(guard, client, signers, settings, clock);
  await link.start();
  return link;
}

class Link implements LinkedGuard {
  private readonly fetch: FetchLike;
  private readonly ended = new AbortController();
  private readonly reporter: Reporter;
  private following: Promise<void> = Promise.resolve();

  constructor(
    readonly guard: Guard,
    readonly client: DeputizeClient,
    private readonly signers: KeySet,
    private readonly settings: LinkedGuardSettings,
    private readonly clock: Clock,
  ) {
    this.fetch = settings.fetch ?? ((url, init) => fetch(url, init));
    this.reporter = new Reporter((events) => this.send(events), clock);
  }

  /** What an earlier process knew, as long as it holds. */
  private async recall(): Promise<void> {
    const remembered = await this.settings.memory?.load();
    if (remembered === undefined) return;
    const { version, snapshot } = readMemory(remembered);
    // One that has expired meanwhile still says below which version nothing is to be believed.
    const opened = await openSnapshot(snapshot, this.signers, secondsOf(this.clock)).catch(() => undefined);
    this.guard.recall(version, opened);
  }

  /** Fetches the first snapshot, then follows the broker's events. */
  async start(): Promise<void> {
    await this.recall();
    const { startTimeoutMs = 10_000 } = this.settings;
    const until = this.clock.uptimeMs() + startTimeoutMs;
    for (let attempt = 0; ; attempt += 1) {
      try {
        await this.fetchSnapshot();
        break;
      } catch (error) {
        const mayPass = error instanceof UnreachableError || (error instanceof ExchangeError && error.status >= 429);
        const pauseMs = backoffMs(attempt);
        if (!mayPass || this.clock.uptimeMs() + pauseMs > until) throw error;
        await this.pause(pauseMs);
      }
    }
    this.following = this.follow();
  }

  report(event: GuardEvent): void {
    this.reporter.report(event);
  }

  async close(): Promise<void> {
    await this.reporter.flush();
    this.ended.abort();
    await this.following;
  }

  private async fetchSnapshot(): Promise<void> {
    const text = await withDeadline(REQUEST_MS, this.ended.signal, async (signal) =>
      readBounded(await this.open("snapshot", "application/json", signal), MAX_EVENT_BYTES),
    );
    if (text === undefined) throw new ProtocolError("the snapshot is too long");
    await this.install(parseObject(text));
  }

  /** Follows the broker until the end: a stream that breaks off is opened anew, and begins with the whole state. */
  private async follow(): Promise<void> {
    for (let attempt = 0; !this.ended.signal.aborted; attempt += 1) {
      try {
        const response = await this.open("events", "text/event-stream", this.ended.signal);
        if (response.body === null) throw new ProtocolError("the broker's stream has no body");
        this.report({ kind: "connected" });
        let isWhole = false;
        for await (const { event, data } of readEvents(response.body, STREAM_BOUNDS, this.ended.signal)) {
          await this.hear(event, data, isWhole);
          isWhole = true;
          attempt = 0;
        }
      } catch (error) {
        if (this.ended.signal.aborted) return;
        this.problem(error);
      }
      await this.pause(backoffMs(attempt));
    }
  }

  private async hear(event: string, data: string, isWhole: boolean): Promise<void> {
    // INVARIANT: nothing is vouched for before the whole state was heard: what was pushed meanwhile was missed.
    if (event !== "snapshot" && !isWhole) throw new ProtocolError("the broker's stream does not begin with a snapshot");
    switch (event) {
      case "snapshot":
        return this.install(parseObject(data));
      case "revocation": {
        const revocation = readRevocation(parseValue(data, 2));
        // What is not understood cannot be heeded: the stream is opened anew, and what it begins with has to do.
        if (revocation === undefined) throw new ProtocolError("the broker revokes something unknown");
        return this.guard.revoke(revocation);
      }
      case "alive":
        return this.guard.hearRevocations();
      default:
        return; // of a later version
    }
  }

  private async install(signed: Json): Promise<void> {
    const snapshot = await openSnapshot(signed, this.signers, secondsOf(this.clock));
    this.guard.install(snapshot);
    await this.settings.memory?.save(JSON.stringify({ version: snapshot.version, snapshot: signed }));
  }

  /** A request in the server's own name: each with an assertion of its own, used once. */
  private async open(path: string, accept: string, signal: AbortSignal): Promise<Response> {
    const headers = { authorization: `Bearer ${await this.client.assertion()}`, accept };
    let response: Response;
    try {
      response = await this.fetch(this.url(path), { headers, signal, redirect: "error" });
    } catch (error) {
      throw new UnreachableError("the broker", error);
    }
    if (response.status === 200) return response;
    throw await readRefused(response);
  }

  private async send(events: readonly JsonObject[]): Promise<void> {
    const authorization = `Bearer ${await this.client.assertion()}`;
    const refusal = await withDeadline(REQUEST_MS, undefined, async (signal) => {
      const response = await this.fetch(this.url("events"), {
        method: "POST",
        headers: { authorization, "content-type": "application/json" },
        body: JSON.stringify({ events }),
        redirect: "error",
        signal,
      });
      if (response.status !== 200) return readRefused(response);
      await response.body?.cancel();
      return undefined;
    });
    if (refusal === undefined) return;
    if (refusal.status === 429 || refusal.status >= 500) throw refusal;
    // What the broker will never accept is not sent again.
    this.problem(refusal);
  }

  private url(path: string): string {
    return `${this.settings.issuer.replace(/\/$/, "")}/guard/${path}`;
  }

  private problem(error: unknown): void {
    const problem = error instanceof Error ? error : new Error(String(error));
    const { onProblem } = this.settings;
    if (onProblem !== undefined) onProblem(problem);
    else console.warn("deputize: link to the broker broken, reconnecting", { problem: problem.message });
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const { signal } = this.ended;
      if (signal.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done);
    });
  }
}

function readMemory(text: string): { version: number; snapshot: Json } {
  try {
    const remembered = parseObject(text);
    const version = wholeNumberAt(remembered, "version");
    const { snapshot } = remembered;
    if (version !== undefined && snapshot !== undefined) return { version, snapshot };
  } catch {
    // Said below.
  }
  throw new ConfigurationError(
    "what the guard remembers cannot be read",
    "remove it if you are sure that the broker was not put back to an older state",
  );
}

async function readRefused(response: Response): Promise<ExchangeError> {
  const text = (await readBounded(response, MAX_REFUSAL_BYTES)) ?? new Uint8Array();
  return readRefusal({ status: response.status, body: jsonOf(text), dpopNonce: undefined, retryAfterSeconds: undefined });
}

function jsonOf(text: Uint8Array): JsonObject {
  try {
    return parseObject(text);
  } catch {
    return {};
  }
}

/** A quarter of a second, doubled each time up to five, and never the same for all guards. */
function backoffMs(attempt: number): number {
  return Math.min(250 * 2 ** Math.min(attempt, 5), 5_000) * (0.5 + Math.random() / 2);
}

const REQUEST_MS = 5_000;
/** The broker is heard every 10 s. */
const STREAM_BOUNDS = { idleMs: 25_000, maxEventBytes: 24 * 1024 * 1024 };
const MAX_EVENT_BYTES = STREAM_BOUNDS.maxEventBytes;
const MAX_REFUSAL_BYTES = 64 * 1024;
