/** Sessions of older protocol versions (`Mcp-Session-Id`), each its opener's alone. */

import type { ToolCallClaims } from "../call/claims.js";

/** Remembers whose each session is: of one person, one actor, one key. When full, the longest unused is forgotten. */
export class Sessions {
  private readonly owners = new Map<string, string>();

  constructor(private readonly capacity = 10_000) {}

  /** The server opened a session for this caller. */
  open(id: string, claims: ToolCallClaims): void {
    if (this.owners.size >= this.capacity) {
      const [oldest] = this.owners.keys();
      if (oldest !== undefined) this.owners.delete(oldest);
    }
    this.owners.set(id, ownerOf(claims));
  }

  /** Whether this caller opened the session. */
  isOf(id: string, claims: ToolCallClaims): boolean {
    const owner = this.owners.get(id);
    if (owner === undefined || owner !== ownerOf(claims)) return false;
    this.owners.delete(id);
    this.owners.set(id, owner);
    return true;
  }
}

function ownerOf({ tenant, sub, actors, clientId, cnf }: ToolCallClaims): string {
  return JSON.stringify([tenant, sub, actors, clientId, cnf.kind, cnf.thumbprint]);
}
