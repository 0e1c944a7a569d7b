/** Why a request is refused, in our words. For logs; the caller gets the `Refusal`. */

/** Each has its own answer in `refusal.ts`. */
export type ReasonKind =
  /** The body is longer than the configured size. */
  | "too_large"
  /** The body did not come in time. */
  | "too_slow"
  /** Not `POST`. */
  | "http_method"
  /** Not plain `application/json`. */
  | "media_type"
  /** A header that may stand once stands twice. */
  | "repeated_header"
  /** Not strict JSON. */
  | "json"
  /** Strict JSON, but not one JSON-RPC request. */
  | "message"
  /** A method that no token admits. */
  | "unknown_method"
  /** A header says something else than the body. */
  | "header_mismatch"
  /** A session, or a stream of one, that is not the caller's. */
  | "session"
  /** A request that needs a session came without. */
  | "no_session"
  /** A response to what the server never asked in this session. */
  | "not_asked"
  /** A request whose id another one under way has. */
  | "id_in_use"
  /** No stream can be had here. */
  | "no_stream"
  /** No room for one session more. */
  | "no_room"
  /** `Origin` of another site. */
  | "origin"
  /** No token. */
  | "no_token"
  /** The token is not acceptable, or does not belong here or to this sender. */
  | "token"
  /** The proof is missing or not acceptable, or was seen before. */
  | "proof"
  /** The proof needs one of our nonces. */
  | "nonce"
  /** The token is for something else. */
  | "scope"
  /** The tool is not approved, or no longer what was approved. */
  | "tool"
  /** The arguments are not valid. */
  | "arguments"
  /** The arguments are outside of the token's constraints. */
  | "constraints"
  /** This is another call than the one that was granted. */
  | "call_differs"
  /** The token, or something that it stands on, is revoked. */
  | "revoked"
  /** The token was used as often as it may be. */
  | "used_up"
  /** Over a rate. */
  | "limited"
  /** Something that a decision needs is not at hand: fail closed. */
  | "unavailable"
  /** What the server said makes no sense. */
  | "server_error"
  /** The server does not accept its guard. */
  | "server_refuses"
  /** The server says that it is not there. */
  | "server_down"
  /** The server did not answer in time. */
  | "server_timeout"
  /** The server asked for the client's model in its answer. */
  | "server_samples"
  /** What the server said is longer than allowed. */
  | "server_too_long";

/** Ends the verification of a request. */
export class Reason extends Error {
  override readonly name = "Reason";

  constructor(
    readonly kind: ReasonKind,
    readonly detail?: string,
    readonly retryAfterSeconds?: number,
  ) {
    super(detail === undefined ? kind : `${kind}: ${detail}`);
  }
}
