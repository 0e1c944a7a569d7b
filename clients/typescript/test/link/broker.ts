/** A broker as a linked guard sees it, in this process: what it answers can be changed at any time. */

import type { JWK } from "jose";
import { KeySet } from "../../src/call/keys.js";
import { Signer } from "../../src/client/signer.js";
import type { FetchLike } from "../../src/client/transport.js";
import type { Snapshot } from "../../src/guard/snapshot.js";
import type { LinkedGuardSettings } from "../../src/link/link.js";
import { Fixture, ISSUER, type Loose, RESOURCE } from "../guard/fixture.js";

/** One stream that a guard follows. */
export class EventStream {
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly body = new ReadableStream<Uint8Array>({ start: (controller) => void (this.controller = controller) });

  send(event: string, data: unknown): void {
    this.controller.enqueue(Buffer.from(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`));
  }

  end(): void {
    this.controller.close();
  }
}

export class FakeBroker {
  document: Loose = {};
  /** What the snapshot endpoint answers, where it is not the snapshot. */
  snapshotAnswer: (() => Response | Promise<Response>) | undefined;
  /** What the report endpoint answers. */
  reportStatus = 200;
  readonly reports: Loose[][] = [];
  readonly assertions: string[] = [];
  readonly redeemed = new Set<string>();
  private readonly opened: EventStream[] = [];
  private readonly waiting: ((stream: EventStream) => void)[] = [];

  private constructor(
    readonly fixture: Fixture,
    readonly snapshotKey: Signer,
    private readonly serverKey: JWK,
  ) {}

  static async create(): Promise<FakeBroker> {
    const { exportJWK, generateKeyPair } = await import("jose");
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    const broker = new FakeBroker(await Fixture.create(), await Signer.generate(), await exportJWK(privateKey));
    broker.document = await broker.fixture.document();
    return broker;
  }

  settings(changes: Partial<LinkedGuardSettings> = {}): LinkedGuardSettings {
    const { kid, publicJwk } = this.snapshotKey;
    return {
      issuer: ISSUER, resource: RESOURCE, publicUrl: RESOURCE, clientId: "pay-guard", privateKey: this.serverKey,
      snapshotKeys: { keys: [{ ...publicJwk, kid }] }, fetch: this.fetch, onProblem: () => undefined,
      clock: {
        nowMs: () => this.fixture.now * 1000, uptimeMs: () => this.fixture.uptimeMs,
        uniqueId: () => crypto.randomUUID(),
      },
      ...changes,
    };
  }

  /** The signed snapshot of the present document. */
  signed(changes: Loose = {}, signer = this.snapshotKey): Promise<{ snapshot: string; signature: string }> {
    return this.fixture.signed({ ...this.document, ...changes }, signer);
  }

  /** A snapshot as its guard reads it. */
  async openSigned(signed: unknown): Promise<Snapshot> {
    const { kid, publicJwk } = this.snapshotKey;
    const signers = await KeySet.fromJwks({ keys: [{ ...publicJwk, kid }] } as never);
    return this.fixture.open(signed as { snapshot: string; signature: string }, signers);
  }

  /** The next stream that a guard opens. */
  nextStream(): Promise<EventStream> {
    const stream = this.opened.shift();
    return stream !== undefined ? Promise.resolve(stream) : new Promise((resolve) => this.waiting.push(resolve));
  }

  readonly fetch: FetchLike = async (url, init) => {
    const { pathname } = new URL(String(url));
    const authorization = new Headers(init?.headers).get("authorization");
    if (authorization !== null) this.assertions.push(authorization);
    if (pathname === "/guard/snapshot") return this.snapshotAnswer?.() ?? Response.json(await this.signed());
    if (pathname === "/guard/events" && init?.method === "POST") return this.report(JSON.parse(String(init.body)) as Loose);
    if (pathname === "/guard/events") return this.stream(init?.signal ?? undefined);
    if (pathname === "/redeem") return this.redeem(new URLSearchParams(String(init?.body)).get("token") ?? "");
    if (pathname.startsWith("/.well-known/")) return Response.json({ issuer: ISSUER, token_endpoint: `${ISSUER}/token` });
    return new Response(null, { status: 404 });
  };

  private report({ events }: Loose): Response {
    if (this.reportStatus === 200) this.reports.push(events as Loose[]);
    return Response.json({}, { status: this.reportStatus });
  }

  private stream(signal: AbortSignal | undefined): Response {
    const stream = new EventStream();
    const waiting = this.waiting.shift();
    if (waiting === undefined) this.opened.push(stream);
    else waiting(stream);
    const aborted = new TransformStream<Uint8Array, Uint8Array>();
    void stream.body.pipeTo(aborted.writable, signal === undefined ? {} : { signal }).catch(() => undefined);
    return new Response(aborted.readable, { headers: { "content-type": "text/event-stream" } });
  }

  private redeem(token: string): Response {
    if (this.redeemed.has(token)) return Response.json({ redeemed: false, reason: "already_used" });
    this.redeemed.add(token);
    return Response.json({ redeemed: true });
  }
}
