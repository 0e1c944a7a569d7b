/** The client: proves itself, exchanges, and remembers what may be remembered. */

import type { JWK } from "jose";
import { type AwsIdentity, shy } from "../aws/credentials.js";
import { awsFormOf, type AwsRequest, readAwsCredentials } from "../aws/request.js";
import { DecryptionKey } from "../aws/sealed.js";
import { encodeBase64url, sha256 } from "../call/bytes.js";
import { accessTokenHash, PROOF_TYP, withoutQuery } from "../call/dpop.js";
import type { JsonObject } from "../call/json.js";
import { type Clock, secondsOf, systemClock } from "../clock.js";
import { needsNonce, readRefusal, readToken } from "./answer.js";
import { TokenCache } from "./cache.js";
import { ApprovalPendingError, ExchangeError, ProtocolError, ToolChangedError } from "./errors.js";
import { checkUrl, discover, type Endpoints } from "./metadata.js";
import { type ExchangeRequest, formOf, mayBeCached } from "./request.js";
import { Signer } from "./signer.js";
import type { ToolToken } from "./token.js";
import { type FetchLike, type Received, Transport } from "./transport.js";

/** Settings of a {@link DeputizeClient}. */
export interface ClientSettings {
  /** The broker. */
  readonly issuer: string;
  /** The id by which the broker knows this client. */
  readonly clientId: string;
  /** The key with which it authenticates (`private_key_jwt`, RFC 7523), as a private JWK. */
  readonly privateKey: JWK;
  /** The key of its proofs, as a private JWK; by default a fresh one that dies with the client. */
  readonly dpopKey?: JWK;
  /**
   * What the broker seals AWS credentials to, as a private JWK: the other half of this client's key with `use: "enc"`
   * there. Where it is given, credentials that are not sealed are refused.
   */
  readonly encryptionKey?: JWK;
  /** How long a request may take; 10 s by default. */
  readonly timeoutMs?: number;
  /** How many tokens are cached; 1,000 by default, 0 for none. */
  readonly cacheCapacity?: number;
  /** Another `fetch`, for example with certificates of one's own. */
  readonly fetch?: FetchLike;
  /** Another source of time and ids. */
  readonly clock?: Clock;
}

/** How a person's decision is waited for. */
export interface WaitOptions {
  /** Told once, when a person has to decide: show `approvalUri` to the user. */
  readonly onPending?: ((pending: ApprovalPendingError) => void | Promise<void>) | undefined;
  /** Ends the wait. */
  readonly signal?: AbortSignal | undefined;
}

/** What the broker knows of a token (RFC 7662 §2.2). */
export interface Introspection {
  /** Whether it is good now. */
  readonly active: boolean;
  /** All members of the answer. */
  readonly members: JsonObject;
}

/** The answer of the broker about the use of an L3 token. */
export type Redemption = "redeemed" | "already_used" | "revoked";

/** A client of one broker. Share it: it holds the last nonce and the cache. */
export class DeputizeClient {
  readonly #assertionKey: Signer;
  readonly #proofKey: Signer;
  readonly #encryptionKey: DecryptionKey | undefined;
  readonly #transport: Transport;
  readonly #cache: TokenCache;
  readonly #clock: Clock;
  #endpoints: Promise<Endpoints> | undefined;
  #nonce: string | undefined;

  private constructor(
    /** The broker. */
    readonly issuer: string,
    /** This client's id. */
    readonly clientId: string,
    keys: { assertion: Signer; proof: Signer; encryption: DecryptionKey | undefined },
    settings: ClientSettings,
  ) {
    this.#assertionKey = keys.assertion;
    this.#proofKey = keys.proof;
    this.#encryptionKey = keys.encryption;
    this.#clock = settings.clock ?? systemClock;
    this.#cache = new TokenCache(settings.cacheCapacity ?? 1_000);
    const fetchLike: FetchLike = settings.fetch ?? ((url, init) => fetch(url, init));
    this.#transport = new Transport(fetchLike, settings.timeoutMs ?? 10_000);
  }

  /** Reads the keys. Nothing is sent yet: metadata is fetched at the first request. */
  static async create(settings: ClientSettings): Promise<DeputizeClient> {
    const issuer = checkUrl(settings.issuer, "the issuer");
    const assertion = await Signer.fromJwk(settings.privateKey);
    const proof = settings.dpopKey === undefined ? await Signer.generate() : await Signer.fromJwk(settings.dpopKey);
    const { encryptionKey } = settings;
    const encryption = encryptionKey === undefined ? undefined : await DecryptionKey.fromJwk(encryptionKey);
    return new DeputizeClient(issuer, settings.clientId, { assertion, proof, encryption }, settings);
  }

  /**
   * Exchanges for a token, or takes one from the cache where the same was asked before and the level allows it.
   *
   * @throws {ExchangeError} and its kinds: the broker said no, or not yet.
   * @throws {ToolChangedError} the token is for another definition than `request.liveToolDigest`.
   * @throws {UnreachableError}, {@link ProtocolError} there is no broker, or not this one.
   */
  async exchange(request: ExchangeRequest, signal?: AbortSignal): Promise<ToolToken> {
    const form = formOf(request);
    const key = mayBeCached(request) ? encodeBase64url(await sha256(form.toString())) : undefined;
    const askedMs = this.#clock.uptimeMs();
    let token = key === undefined ? undefined : this.#cache.take(key, askedMs);
    if (token === undefined) {
      token = await this.#request(form, request.waitSeconds, signal);
      if (key !== undefined) this.#cache.keep(key, token, askedMs);
    }
    const { liveToolDigest, detail } = request;
    if (liveToolDigest !== undefined && token.toolDigest !== liveToolDigest && detail !== undefined) {
      const tool = detail.level === "L0" ? "" : detail.tool;
      throw new ToolChangedError(tool, liveToolDigest, token.toolDigest, token.decisionId);
    }
    return token;
  }

  /** As {@link exchange}; where a person has to decide, waits until one has, nobody did in time, or `signal` ends it. */
  async exchangeAndWait(request: ExchangeRequest, { onPending, signal }: WaitOptions = {}): Promise<ToolToken> {
    let pauseSeconds = 0;
    for (let asked = request; ; ) {
      try {
        return await this.exchange(asked, signal);
      } catch (error) {
        if (error instanceof ApprovalPendingError) {
          if (asked.approvalId === undefined) await onPending?.(error);
          pauseSeconds = Math.max(pauseSeconds, error.intervalSeconds);
          asked = { ...request, approvalId: error.approvalId, waitSeconds: request.waitSeconds ?? WAIT_SECONDS };
        } else if (error instanceof ExchangeError && error.error === "slow_down" && asked.approvalId !== undefined) {
          pauseSeconds += SLOW_DOWN_SECONDS;
        } else {
          throw error;
        }
      }
      await pause(pauseSeconds * 1000, signal);
    }
  }

  /** A proof for one request to a server (RFC 9449 §4.2). `nonce` is the last that this server gave. */
  proofFor(method: string, url: string, accessToken: string, nonce?: string): Promise<string> {
    return this.#prove(method, url, nonce, accessToken);
  }

  /** Takes a token out of the cache, for example because a server no longer accepts it. */
  forget(token: ToolToken): void {
    this.#cache.forget(token.accessToken);
  }

  /** Asks the broker about a token (RFC 7662). */
  async introspect(token: string): Promise<Introspection> {
    const { body } = await this.#postToken("introspection", token);
    const { active } = body;
    if (typeof active !== "boolean") throw new ProtocolError("the introspection response lacks active");
    return { active, members: body };
  }

  /** Revokes a token (RFC 7009), and with it what was made from it. */
  async revoke(token: string): Promise<void> {
    this.#cache.forget(token);
    await this.#postToken("revocation", token);
  }

  /** Redeems an L3 token at the broker, as the server of its audience. */
  async redeem(token: string): Promise<Redemption> {
    const { body } = await this.#postToken("redemption", token);
    const { redeemed, reason } = body;
    if (typeof redeemed !== "boolean") throw new ProtocolError("the redemption response is malformed");
    if (redeemed) return "redeemed";
    return reason === "already_used" ? "already_used" : "revoked";
  }

  /**
   * Asks for AWS credentials for the one call of a token, as the server that it is for. In a server behind `protect`,
   * `verifiedCall(ctx).awsCredentials()` does it.
   *
   * @throws {ExchangeError} and its kinds: the broker said no, or not yet.
   */
  async awsCredentials(request: AwsRequest): Promise<AwsIdentity> {
    const url = `${this.issuer.replace(/\/$/, "")}/aws/credentials`;
    const received = await this.#transport.post(url, await this.#authenticated(awsFormOf(request)));
    return shy(await readAwsCredentials(received, this.#encryptionKey));
  }

  /** A client assertion (RFC 7523 §2.2): for the broker alone, good for a minute, once. */
  assertion(): Promise<string> {
    const iat = secondsOf(this.#clock);
    return this.#assertionKey.sign("client-authentication+jwt", {
      iss: this.clientId,
      sub: this.clientId,
      aud: this.issuer,
      jti: this.#clock.uniqueId(),
      iat,
      exp: iat + ASSERTION_SECONDS,
    });
  }

  /** Thumbprint of the key that its tokens are bound to. */
  get thumbprint(): string {
    return this.#proofKey.thumbprint;
  }

  async #request(form: URLSearchParams, waitSeconds = 0, signal?: AbortSignal): Promise<ToolToken> {
    const { token: url } = await this.#discovered();
    const authenticated = await this.#authenticated(form);
    const wait = Math.min(waitSeconds, MAX_WAIT_SECONDS);
    let received = await this.#postWithProof(url, authenticated, wait, signal);
    if (needsNonce(received)) {
      // RFC 9449 §8: once more, with the nonce. A challenge consumed nothing, so the assertion is still good.
      received = await this.#postWithProof(url, authenticated, wait, signal);
    }
    return readToken(received);
  }

  async #postWithProof(url: string, form: URLSearchParams, waitSeconds: number, signal?: AbortSignal): Promise<Received> {
    const proof = await this.#prove("POST", url, this.#nonce);
    const received = await this.#transport.post(url, form, { proof, waitSeconds, signal });
    // RFC 9449 §8.2: any answer may bring the nonce for the next request.
    this.#nonce = received.dpopNonce ?? this.#nonce;
    return received;
  }

  async #postToken(endpoint: keyof Endpoints, token: string): Promise<Received> {
    const url = (await this.#discovered())[endpoint];
    const received = await this.#transport.post(url, await this.#authenticated(new URLSearchParams({ token })));
    if (received.status !== 200) throw readRefusal(received);
    return received;
  }

  async #authenticated(form: URLSearchParams): Promise<URLSearchParams> {
    const authenticated = new URLSearchParams(form);
    authenticated.append("client_id", this.clientId);
    authenticated.append("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    authenticated.append("client_assertion", await this.assertion());
    return authenticated;
  }

  async #prove(htm: string, htu: string, nonce?: string, accessToken?: string): Promise<string> {
    return this.#proofKey.signWithEmbeddedKey(PROOF_TYP, {
      jti: this.#clock.uniqueId(),
      htm,
      htu: withoutQuery(htu),
      iat: secondsOf(this.#clock),
      ...(nonce === undefined ? {} : { nonce }),
      ...(accessToken === undefined ? {} : { ath: await accessTokenHash(accessToken) }),
    });
  }

  /** What was found is kept; a failure is not. */
  #discovered(): Promise<Endpoints> {
    this.#endpoints ??= discover(this.#transport, this.issuer).catch((error: unknown) => {
      this.#endpoints = undefined;
      throw error;
    });
    return this.#endpoints;
  }
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const ended = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", ended);
      resolve();
    }, ms);
    signal?.addEventListener("abort", ended, { once: true });
  });
}

const ASSERTION_SECONDS = 60;
const WAIT_SECONDS = 30;
const MAX_WAIT_SECONDS = 60;
/** RFC 8628 §3.5. */
const SLOW_DOWN_SECONDS = 5;
