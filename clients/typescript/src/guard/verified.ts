/** What a guard lets through. Only a guard makes them: there is no other way to the server. */

import type { AwsCredentialsProvider } from "../aws/credentials.js";
import { levelOf, type ToolCallClaims } from "../call/claims.js";
import type { JsonObject } from "../call/json.js";
import type { Level } from "../call/level.js";
import type { Action } from "../call/offers.js";
import { ConfigurationError } from "../client/errors.js";

/** Known to the guard alone: the package does not export it. */
export const BY_THE_GUARD: unique symbol = Symbol("made by the guard");

/** What every verified request has. */
abstract class VerifiedRequest {
  /** The token's claims: person, actors, transaction. */
  readonly claims: ToolCallClaims;
  /** The message, strictly read: the only thing of the body that may be passed on. Empty where there is no body. */
  readonly message: JsonObject;
  /** `DPoP-Nonce` of the answer (RFC 9449 §8.2). */
  readonly nextNonce: string;
  readonly #token: string;

  constructor(by: typeof BY_THE_GUARD, parts: { claims: ToolCallClaims; message: JsonObject; nextNonce: string; token: string }) {
    if (by !== BY_THE_GUARD) throw new TypeError("only a guard verifies");
    this.claims = parts.claims;
    this.message = parts.message;
    this.nextNonce = parts.nextNonce;
    this.#token = parts.token;
  }

  /** The token: spent or bound, so it helps no thief. Bring it to the broker for the next hop. */
  get token(): string {
    return this.#token;
  }

  /** The body to pass on, serialized from what was verified. */
  rebuiltBody(): string {
    return JSON.stringify(this.message);
  }
}

/** A call that may run, once; or a prompt, or a resource, to be given. */
export class VerifiedCall extends VerifiedRequest {
  readonly kind = "call";
  /** What is done: the method. */
  readonly action: Action;
  /** Name of the tool or prompt; URI of the resource, verbatim. */
  readonly name: string;
  /** The arguments that were verified. The object has no prototype. */
  readonly arguments: JsonObject;
  /** Digest of this call, at every level. */
  readonly callDigest: string;
  /** The `Mcp-Param-*` fields that go with it, from the approved schema and the verified arguments. */
  readonly mirrored: readonly (readonly [name: string, value: string])[];
  readonly #aws: AwsCredentialsProvider | undefined;

  constructor(
    by: typeof BY_THE_GUARD,
    parts: ConstructorParameters<typeof VerifiedRequest>[1],
    call: Pick<VerifiedCall, "action" | "name" | "arguments" | "callDigest" | "mirrored">,
    aws?: AwsCredentialsProvider,
  ) {
    super(by, parts);
    this.action = call.action;
    this.name = call.name;
    this.arguments = call.arguments;
    this.callDigest = call.callDigest;
    this.mirrored = call.mirrored;
    this.#aws = aws;
  }

  /**
   * AWS credentials for the one resource in this call: a provider for clients of the AWS SDK (v3). They are asked for at
   * their first use, and kept until their window ends.
   *
   * @throws {@link ConfigurationError}: this is no call of a tool, or nothing here asks a broker.
   */
  awsCredentials(): AwsCredentialsProvider {
    if (this.action !== "tools/call") {
      throw new ConfigurationError("AWS credentials are for calls of tools alone", "offer what needs them as a tool");
    }
    if (this.#aws === undefined) {
      throw new ConfigurationError("this call has no way to the broker", "make the guard with linkGuard");
    }
    return this.#aws;
  }

  /** Name of the tool, if it is one that is called. */
  get tool(): string | undefined {
    return this.action === "tools/call" ? this.name : undefined;
  }

  /** The binding level of the token. */
  get level(): Level {
    return levelOf(this.claims.detail);
  }
}

/** A request that only looks: discovery, listing, a notification. Its result is still to be filtered. */
export class VerifiedListing extends VerifiedRequest {
  readonly kind = "listing";
  /** The JSON-RPC method. */
  readonly method: string;

  constructor(by: typeof BY_THE_GUARD, parts: ConstructorParameters<typeof VerifiedRequest>[1], method: string) {
    super(by, parts);
    this.method = method;
  }
}

/** The client's answer to what the server asked. It may go only into the session in which the server asked that. */
export class VerifiedResponse extends VerifiedRequest {
  readonly kind = "response";
}

/** A request to listen to the server's messages (`GET`), or to end a session (`DELETE`): it has no body. */
export class VerifiedStream extends VerifiedRequest {
  readonly kind = "stream";
}

/** A request that passed every check. */
export type Verified = VerifiedCall | VerifiedListing | VerifiedResponse | VerifiedStream;
