/**
 * Sessions of MCP up to 2025-11-25: whose they are, what the server asked in them, which events it sent. To anyone but
 * its owner a session does not exist.
 */

import type { ToolCallClaims } from "../call/claims.js";
import type { MessageId } from "../guard/message.js";
import { Reason } from "../guard/reason.js";

/** One session: of one person through these actors and this client, with this key. */
export class Session {
  /** Requests and streams of it that are served now. */
  underWay = 0;
  /** Requests of the server that wait for the client's response. */
  private readonly asked = new Set<string>();
  /** Methods of the client's requests that wait for the server's response, the newest last. */
  private readonly requested = new Map<string, string>();
  /** Calls whose token fixes what they do: under way, or left alone before they had their response. */
  private readonly fixed = new Set<string>();
  /** Cursors of the events that went to the client, the newest last. */
  private readonly cursors = new Set<string>();

  constructor(
    /** Its id, as the server gave it. */
    readonly id: string,
    readonly owner: string,
    readonly person: string,
    /** Uptime of the last request in it. */
    public usedMs: number,
  ) {}

  /**
   * Notes that the server asks something. False where it asks too much, or where the answer could steer what a call's
   * token fixes.
   */
  noteAsked(id: MessageId): boolean {
    const key = JSON.stringify(id);
    if (this.fixed.size > 0 || this.asked.size >= MAX_ASKED || this.asked.has(key)) return false;
    this.asked.add(key);
    return true;
  }

  /** The client answers what the server asked: once. */
  takeAsked(id: MessageId): void {
    if (!this.asked.delete(JSON.stringify(id))) throw new Reason("not_asked");
  }

  /**
   * Notes a request of the client, so that its response is known on whatever stream it comes. `isFixed`: it is a call
   * whose token fixes what it does; until it has its response, the server asks nothing.
   *
   * An id that is in use is refused. A server that looks for streams by id would send one response in place of another,
   * and what is filtered for one method is not for another. So is a new one where nothing can be forgotten.
   */
  noteRequested(id: MessageId, method: string, isFixed: boolean): void {
    const key = JSON.stringify(id);
    if (this.requested.has(key)) throw new Reason("id_in_use");
    if (this.requested.size >= MAX_REQUESTED) {
      // INVARIANT: what is fixed is never forgotten before its response: meanwhile the server asks nothing.
      const oldest = [...this.requested.keys()].find((each) => !this.fixed.has(each));
      if (oldest === undefined) throw new Reason("limited", "too many calls under way in one session", 1);
      this.requested.delete(oldest);
    }
    this.requested.set(key, method);
    if (isFixed) this.fixed.add(key);
  }

  /** The method of a request that has no response yet; from now on it has, or never will. */
  takeRequested(id: MessageId): string | undefined {
    const key = JSON.stringify(id);
    const method = this.requested.get(key);
    this.requested.delete(key);
    this.fixed.delete(key);
    return method;
  }

  /** Notes that an event goes to the client. */
  noteCursor(cursor: string): void {
    const [oldest = ""] = this.cursors;
    if (this.cursors.size >= MAX_CURSORS) this.cursors.delete(oldest);
    this.cursors.add(cursor);
  }

  /** Whether an event with this cursor went to the client in this session: only such a stream is resumed. */
  knowsCursor(cursor: string): boolean {
    return this.cursors.has(cursor);
  }
}

/** All sessions. Bounded, with a share for each owner and person; never evicts one that is not idle. */
export class Sessions {
  private readonly sessions = new Map<string, Session>();

  constructor(
    private readonly uptimeMs: () => number,
    private readonly capacity = MAX_SESSIONS,
  ) {}

  /** Refuses where there is no room for one session more of this caller. */
  checkRoom(claims: ToolCallClaims): void {
    if (!this.hasRoom(claims)) this.endIdle();
    if (!this.hasRoom(claims)) throw new Reason("no_room");
  }

  /** The server began a session for this caller. */
  begin(id: string, claims: ToolCallClaims): Session {
    if (!isName(id) || this.sessions.has(id)) {
      throw new Reason("server_error", "a session id that is none, or in use");
    }
    this.checkRoom(claims);
    const session = new Session(id, ownerOf(claims), personOf(claims), this.uptimeMs());
    this.sessions.set(id, session);
    return session;
  }

  /** The session with this id, if it is this caller's. Another's answers as one that never was. */
  find(id: string, claims: ToolCallClaims): Session {
    const session = this.sessions.get(id);
    if (session === undefined || session.owner !== ownerOf(claims)) throw new Reason("session");
    if (this.isIdle(session)) {
      this.forget(session);
      throw new Reason("session", "idle for too long");
    }
    session.usedMs = this.uptimeMs();
    return session;
  }

  /** Forgets a session. */
  forget(session: Session): void {
    this.sessions.delete(session.id);
  }

  private hasRoom(claims: ToolCallClaims): boolean {
    const [owner, person] = [ownerOf(claims), personOf(claims)];
    let [ofOwner, ofPerson] = [0, 0];
    for (const session of this.sessions.values()) {
      if (session.owner === owner) ofOwner += 1;
      // A client has as many keys as it likes.
      if (session.person === person) ofPerson += 1;
    }
    return this.sessions.size < this.capacity && ofOwner < MAX_OF_ONE_OWNER && ofPerson < MAX_OF_ONE_PERSON;
  }

  private endIdle(): void {
    for (const session of this.sessions.values()) if (this.isIdle(session)) this.forget(session);
  }

  private isIdle({ underWay, usedMs }: Session): boolean {
    return underWay === 0 && this.uptimeMs() - usedMs > IDLE_MS;
  }
}

/** Who somebody is, whatever key he has. */
export function callerOf({ tenant, sub, actors, clientId }: ToolCallClaims): string {
  return JSON.stringify([tenant, sub, actors, clientId]);
}

/** Whether a session id or a cursor can be one: visible ASCII of bounded length. */
export function isName(text: string): boolean {
  return NAME.test(text);
}

function ownerOf(claims: ToolCallClaims): string {
  return JSON.stringify([callerOf(claims), claims.cnf.kind, claims.cnf.thumbprint]);
}

function personOf({ tenant, sub }: ToolCallClaims): string {
  return JSON.stringify([tenant, sub]);
}

const NAME = /^[!-~]{1,512}$/;
const MAX_SESSIONS = 10_000;
const MAX_OF_ONE_OWNER = 64;
const MAX_OF_ONE_PERSON = 256;
const MAX_ASKED = 64;
const MAX_REQUESTED = 256;
const MAX_CURSORS = 1024;
const IDLE_MS = 1_800_000;
