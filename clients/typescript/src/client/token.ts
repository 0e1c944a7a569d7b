/** A tool-call token as a client holds it. */

import type { JsonObject } from "../call/json.js";

/** What was granted. */
export interface Granted {
  readonly accessToken: string;
  /** How long it lived when it was issued, in seconds. */
  readonly expiresInSeconds: number;
  readonly scope: string;
  /** `authorization_details` as granted. */
  readonly authorizationDetails: readonly JsonObject[];
  /** The transaction that it belongs to. */
  readonly transactionId: string;
  /** The decision that made it: what an operator asks `deputize explain` about. */
  readonly decisionId: string;
}

/** A token and what was granted with it. The token itself stays out of logs: see {@link ToolToken.accessToken}. */
export class ToolToken implements Granted {
  readonly #accessToken: string;
  readonly expiresInSeconds: number;
  readonly scope: string;
  readonly authorizationDetails: readonly JsonObject[];
  readonly transactionId: string;
  readonly decisionId: string;

  constructor(granted: Granted) {
    this.#accessToken = granted.accessToken;
    this.expiresInSeconds = granted.expiresInSeconds;
    this.scope = granted.scope;
    this.authorizationDetails = granted.authorizationDetails;
    this.transactionId = granted.transactionId;
    this.decisionId = granted.decisionId;
  }

  /** The token itself. It is bound to the client's key: each use needs a proof (`client.proofFor`). */
  get accessToken(): string {
    return this.#accessToken;
  }

  /** The value of `Authorization` (RFC 9449 §7.1). */
  get authorization(): string {
    return `DPoP ${this.#accessToken}`;
  }

  /** Digest of the approved definition of its tool; absent at L0. */
  get toolDigest(): string | undefined {
    const digest = this.authorizationDetails[0]?.["tool_digest"];
    return typeof digest === "string" ? digest : undefined;
  }

  /** How many calls it is good for; absent where nothing limits it. */
  get maxUses(): number | undefined {
    const uses = this.authorizationDetails[0]?.["max_uses"];
    return typeof uses === "number" ? uses : undefined;
  }

  /** Whether it is bound to one call (L3), whatever was asked. */
  get bindsOneCall(): boolean {
    return this.authorizationDetails[0]?.["call_digest"] !== undefined;
  }
}
