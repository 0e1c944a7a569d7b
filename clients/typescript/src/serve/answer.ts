/** The handler's answer on its way back: screened message by message, within bounds. */

import { readBounded } from "../client/transport.js";
import { Reason } from "../guard/reason.js";
import { EventReader, type ServerEvent, writeEvent } from "./events.js";
import { INTERNAL_ERROR, rpcError, type Screen } from "./screen.js";

/** How an answer ended. */
export interface End {
  /** Whether the client has the response. */
  readonly isAnswered: boolean;
  /** Whether it may still come, on another stream: the client went away, or the stream can be resumed. */
  readonly isLeft: boolean;
  readonly bytes: number;
}

/** What an answer is passed through with. */
export interface Passing {
  readonly screen: Screen;
  /** The request listens to whatever the server says, and is no call or question itself. */
  readonly listens: boolean;
  /** The request ends its session, whatever the server says to that. */
  readonly ends: boolean;
  /** The longest message. */
  readonly maxBytes: number;
  /** How long a stream may last. */
  readonly streamMs: number;
  /** Aborted when an answer that is no stream has taken too long. */
  readonly late: AbortSignal;
  /** Told errors that the server is to get, because it does not get what it asked for. */
  readonly tell: (error: string) => void;
  /** Told once, when nothing more of it comes. */
  readonly onEnd: (end: End) => void;
}

/** The answer with nothing in it but what the client may have. Throws a {@link Reason} where there is no such answer. */
export async function screened(response: Response, passing: Passing): Promise<Response> {
  const { screen, listens, ends, onEnd } = passing;
  const { status, body } = response;
  if (screen.asked === undefined && !listens) {
    // A notification or a response has no answer, whatever the server says.
    void body?.cancel().catch(() => undefined);
    if (!ends && ![200, 202, 204].includes(status)) throw noAnswer(status, passing);
    onEnd({ isAnswered: false, isLeft: false, bytes: 0 });
    return new Response(null, { status: ends ? 204 : 202, headers: kept(response.headers) });
  }
  const media = mediaOf(response);
  if (status === 200 && media === "text/event-stream" && body !== null) {
    const stream = new EventRelay(body, passing).stream();
    return new Response(stream, { status, headers: kept(response.headers) });
  }
  if (media === "application/json" && !listens) {
    if (status === 200) return one(response, passing);
    if (status === 400 || (status === 404 && screen.session === undefined)) return rejected(response, passing);
  }
  void body?.cancel().catch(() => undefined);
  throw noAnswer(status, passing);
}

/** What a status means that comes with no answer: a page, or a redirect to where nobody approved, goes no further. */
function noAnswer(status: number, { screen, listens }: Passing): Reason {
  if (listens && (status === 400 || status === 405)) return new Reason("no_stream", `status ${status}`);
  if (status === 401 || status === 403) return new Reason("server_refuses", `status ${status}`);
  if (status === 404 && screen.session !== undefined) return new Reason("session", FORGOTTEN);
  if (status >= 502 && status <= 504) return new Reason("server_down", `status ${status}`);
  return new Reason("server_error", `status ${status}, or neither JSON nor an event stream`);
}

/** An error of the protocol goes on with its status, under the id of the request. */
async function rejected(response: Response, passing: Passing): Promise<Response> {
  const { screen, maxBytes, late, onEnd } = passing;
  const { status } = response;
  const text = await readBounded(response, maxBytes, late);
  if (text === undefined) throw new Reason("server_too_long");
  const error = screen.errorOf(new TextDecoder().decode(text));
  if (error === undefined) throw noAnswer(status, passing);
  onEnd({ isAnswered: false, isLeft: false, bytes: error.length });
  return new Response(error, { status, headers: kept(response.headers) });
}

/** An answer of one message. */
async function one(response: Response, { screen, maxBytes, late, onEnd }: Passing): Promise<Response> {
  const text = await readBounded(response, maxBytes, late);
  if (text === undefined) throw new Reason("server_too_long");
  const judged = await screen.judge(new TextDecoder().decode(text));
  if (judged.verdict !== "last") throw new Reason("server_error", "no response");
  const bytes = new TextEncoder().encode(judged.text);
  onEnd({ isAnswered: true, isLeft: false, bytes: bytes.length });
  return new Response(bytes, { status: response.status, headers: kept(response.headers) });
}

/** An answer of many messages, passed on as they come. */
class EventRelay {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  private readonly events: EventReader;
  private readonly encoder = new TextEncoder();
  private bytes = 0;
  private isAnswered = false;
  private isResumable = false;
  /** Why nothing more of it goes on: it has lasted too long, or what it stands for is revoked. */
  private ending: Reason | undefined;
  private isOver = false;
  private watch: ReturnType<typeof setInterval> | undefined;

  constructor(
    body: ReadableStream<Uint8Array>,
    private readonly passing: Passing,
  ) {
    this.reader = body.getReader();
    this.events = new EventReader(passing.maxBytes);
  }

  stream(): ReadableStream<Uint8Array> {
    return new ReadableStream<Uint8Array>({
      start: (controller) => this.watchOver(controller),
      pull: async (controller) => {
        let sent = false;
        while (!sent && !this.isOver) sent = await this.pass(controller);
      },
      cancel: () => this.end(true),
    });
  }

  /** A stream lasts only so long, and ends when what its token stood for is revoked. */
  private watchOver(controller: ReadableStreamDefaultController<Uint8Array>): void {
    const { screen } = this.passing;
    const { guard } = screen;
    const untilMs = guard.uptimeMs() + this.passing.streamMs;
    let saidMs = guard.uptimeMs();
    this.watch = setInterval(() => {
      const nowMs = guard.uptimeMs();
      this.ending ??= nowMs >= untilMs ? new Reason("server_timeout") : screen.revoked();
      // What waits for the server's next word then hears that there is none.
      if (this.ending !== undefined) return void this.reader.cancel().catch(() => undefined);
      if (nowMs - saidMs < KEEP_ALIVE_MS || this.isOver) return;
      saidMs = nowMs;
      // Whoever stands between closes what is silent for long. A client that does not read needs no more of it.
      if ((controller.desiredSize ?? 0) > 0) controller.enqueue(this.encoder.encode(": alive\n\n"));
    }, CHECK_MS);
    (this.watch as { unref?: () => void }).unref?.();
  }

  /** Passes on what the server says next; whether the client got any of it. */
  private async pass(controller: ReadableStreamDefaultController<Uint8Array>): Promise<boolean> {
    const { screen } = this.passing;
    let sent = false;
    try {
      const { done, value } = await this.reader.read();
      for (const event of value === undefined ? [] : this.events.push(value)) {
        this.ending ??= screen.revoked();
        // Whom an answer is owed hears why there is none.
        if (this.ending !== undefined) return await this.fail(this.ending, controller);
        const text = await this.judged(event);
        if (text === undefined) continue;
        this.send(text, controller);
        sent = true;
        // On the stream of a request its response is the end.
        if (this.isAnswered) return this.close(controller);
      }
      if (!done) return sent;
      // Another stream than one that can be resumed owes its response.
      const isOwed = screen.asked !== undefined && !screen.subscribes;
      if (isOwed && this.ending !== undefined) throw this.ending;
      if (isOwed && !this.isResumable) throw new Reason("server_error", "a stream without a response");
      return this.close(controller);
    } catch (error) {
      return this.fail(error, controller);
    }
  }

  /** An event as it goes on; nothing where it does not. */
  private async judged({ data, id, retryMs }: ServerEvent): Promise<string | undefined> {
    const { screen, listens, tell } = this.passing;
    if (id !== undefined && screen.session !== undefined) {
      this.isResumable = true;
      screen.session.noteCursor(id);
    }
    // Without a session nobody could be told whose a cursor is.
    const cursor = screen.session === undefined ? undefined : id;
    if (data === "") return writeEvent({ data, id: cursor, retryMs });
    const { verdict, text } = await screen.judge(data);
    if (verdict === "refused") tell(text);
    if (verdict === "refused" || verdict === "held") return undefined;
    if (verdict === "last" && !listens) this.isAnswered = true;
    return writeEvent({ data: text, id: cursor, retryMs });
  }

  private send(text: string, controller: ReadableStreamDefaultController<Uint8Array>): void {
    const bytes = this.encoder.encode(text);
    this.bytes += bytes.length;
    if (this.bytes > Math.max(this.passing.maxBytes, MAX_STREAM_BYTES)) throw new Reason("server_too_long");
    controller.enqueue(bytes);
  }

  /** The response that the server owes is an error then. */
  private async fail(error: unknown, controller: ReadableStreamDefaultController<Uint8Array>): Promise<true> {
    const { guard, asked, subscribes } = this.passing.screen;
    if (asked !== undefined && !subscribes && !this.isOver) {
      const reason = error instanceof Reason ? error : new Reason("server_error", "the stream broke off");
      const { description } = await guard.refusal(reason);
      const data = rpcError(asked.id, INTERNAL_ERROR, description);
      controller.enqueue(this.encoder.encode(writeEvent({ data, id: undefined, retryMs: undefined })));
      this.isResumable = false;
    }
    return this.close(controller);
  }

  private close(controller: ReadableStreamDefaultController<Uint8Array>): true {
    const { screen } = this.passing;
    if (!this.isOver && screen.subscribes && !this.isAnswered) {
      const farewell = writeEvent({ data: screen.farewell(), id: undefined, retryMs: undefined });
      controller.enqueue(this.encoder.encode(farewell));
    }
    if (!this.isOver) controller.close();
    this.end(false);
    return true;
  }

  private end(isGone: boolean): void {
    if (this.isOver) return;
    this.isOver = true;
    clearInterval(this.watch);
    void this.reader.cancel().catch(() => undefined);
    const { isAnswered, bytes } = this;
    this.passing.onEnd({ isAnswered, isLeft: isGone || this.isResumable || this.ending !== undefined, bytes });
  }
}

function mediaOf({ headers }: Response): string {
  const [media = ""] = (headers.get("content-type") ?? "").split(";", 1);
  return media.trim().toLowerCase();
}

/** Header fields of the answer that go on: its body may have another length, and sessions are named by the guard. */
function kept(headers: Headers): Headers {
  const passed = new Headers(headers);
  for (const name of ["content-length", "mcp-session-id", "dpop-nonce", "x-request-id"]) passed.delete(name);
  return passed;
}

/** The server does not know the session any more: neither does the guard then. */
export const FORGOTTEN = "the server forgot it";
const CHECK_MS = 1_000;
const KEEP_ALIVE_MS = 10_000;
const MAX_STREAM_BYTES = 64 * 1024 * 1024;
