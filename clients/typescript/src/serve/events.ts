/** Server-sent events (WHATWG HTML §9.2), read within bounds and written anew. */

import { joined } from "../call/bytes.js";
import { Reason } from "../guard/reason.js";
import { isName } from "./sessions.js";

/** One event. */
export interface ServerEvent {
  /** `data`, its lines joined. */
  readonly data: string;
  /** The cursor with which a broken stream is resumed. */
  readonly id: string | undefined;
  readonly retryMs: number | undefined;
}

/** Reads a stream of events piece by piece. */
export class EventReader {
  /** The line that is being read, in pieces. */
  private pieces: Uint8Array[] = [];
  /** The last line ended in a carriage return: a line feed that follows belongs to it. */
  private afterReturn = false;
  /** Bytes of the event that is being read. */
  private size = 0;
  private data: string[] = [];
  private id: string | undefined;
  private retryMs: number | undefined;
  private isEmpty = true;

  constructor(private readonly maxEventBytes: number) {}

  /** Takes in a piece; gives back the events that are whole now. */
  push(piece: Uint8Array): ServerEvent[] {
    const events: ServerEvent[] = [];
    let start = 0;
    for (let at = 0; at < piece.length; at += 1) {
      const byte = piece[at];
      const follows = this.afterReturn && byte === LF;
      this.afterReturn = byte === CR;
      if (follows) start = at + 1;
      else if (byte === LF || byte === CR) {
        this.keep(piece.subarray(start, at));
        start = at + 1;
        const event = this.endLine();
        if (event !== undefined) events.push(event);
      }
    }
    this.keep(piece.subarray(start));
    return events;
  }

  private keep(bytes: Uint8Array): void {
    this.size += bytes.length;
    if (this.size > this.maxEventBytes) throw new Reason("server_too_long", "an event");
    if (bytes.length > 0) this.pieces.push(bytes);
  }

  private endLine(): ServerEvent | undefined {
    const line = textOf(joined(this.pieces));
    this.pieces = [];
    if (line !== "") {
      this.field(line);
      return undefined;
    }
    const event = { data: this.data.join("\n"), id: this.id, retryMs: this.retryMs };
    const { isEmpty } = this;
    [this.data, this.id, this.retryMs, this.isEmpty, this.size] = [[], undefined, undefined, true, 0];
    return isEmpty ? undefined : event;
  }

  private field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    // One that no header could carry back is of no use.
    else if (name === "id" && isName(value)) this.id = value;
    else if (name === "retry" && /^[0-9]{1,9}$/.test(value)) this.retryMs = Number(value);
    else return;
    this.isEmpty = false;
  }
}

/** An event as it goes over the wire. */
export function writeEvent({ data, id, retryMs }: ServerEvent): string {
  const lines = data.split("\n").map((line) => `data: ${line}\n`);
  const cursor = id === undefined ? "" : `id: ${id}\n`;
  return `${cursor}${retryMs === undefined ? "" : `retry: ${retryMs}\n`}${lines.join("")}\n`;
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Reason("server_error", "events that are not UTF-8");
  }
}

const [LF, CR] = [10, 13];
