/** What the broker answers, read strictly enough to be relied on. */

import { isObject, type Json, type JsonObject } from "../call/json.js";
import type { Received } from "./transport.js";
import {
  AccessDeniedError, ApprovalPendingError, ExchangeError, ProtocolError, type Refused, RetryLaterError,
  SignInRequiredError,
} from "./errors.js";
import { ToolToken } from "./token.js";

/** Reads the answer to an exchange. */
export function readToken(received: Received): ToolToken {
  if (received.status !== 200) throw readRefusal(received);
  const { body } = received;
  const text = (name: string): string => {
    const value = body[name];
    if (typeof value !== "string") throw new ProtocolError(`the token response lacks ${name}`);
    return value;
  };
  const [expiresIn, details] = [body["expires_in"], body["authorization_details"]];
  if (typeof expiresIn !== "number" || !Array.isArray(details)) {
    throw new ProtocolError("the token response is malformed");
  }
  // We sent a proof: a token that is not bound to it is not what was asked for (RFC 9449 §5).
  if (text("token_type").toLowerCase() !== "dpop") throw new ProtocolError("the token is not bound to our key");
  return new ToolToken({
    accessToken: text("access_token"),
    expiresInSeconds: expiresIn,
    scope: text("scope"),
    authorizationDetails: details.filter(isObject),
    transactionId: text("transaction_id"),
    decisionId: text("decision_id"),
  });
}

/** Whether the broker asks for a proof with its nonce (RFC 9449 §8). */
export function needsNonce(received: Received): boolean {
  return received.status !== 200 && received.dpopNonce !== undefined && received.body["error"] === "use_dpop_nonce";
}

/** The error that an answer stands for. `advice` says what to do, by its code, where that is not what it is at an exchange. */
export function readRefusal(received: Received, advice?: ReadonlyMap<string, string>): ExchangeError {
  const { status, body, retryAfterSeconds } = received;
  const refused: Refused = {
    status,
    error: plain(body["error"]) ?? "",
    description: plain(body["error_description"]) ?? "",
    decisionId: plain(body["decision_id"]),
  };
  const whatToDo = advice?.get(refused.error);
  // What another server said is no matter of time (RFC 9110 §15.6.3).
  if (status === 429 || (status >= 500 && status !== 502)) return new RetryLaterError(refused, retryAfterSeconds);
  switch (refused.error) {
    case "access_denied":
      return new AccessDeniedError(refused, denialReason(body["reason"]), whatToDo);
    case "authorization_pending":
      return readPending(refused, body);
    case "insufficient_user_authentication":
      return new SignInRequiredError(
        refused,
        (plain(body["acr_values"]) ?? "").split(" ").filter((value) => value !== ""),
        seconds(body["max_age"]),
      );
    default:
      return new ExchangeError(refused, whatToDo);
  }
}

function readPending(refused: Refused, body: JsonObject): ExchangeError {
  const approvalId = plain(body["approval_id"]);
  if (approvalId === undefined) return new ExchangeError(refused);
  return new ApprovalPendingError(
    refused,
    approvalId,
    plain(body["approval_uri"]),
    seconds(body["interval"]) ?? DEFAULT_INTERVAL_SECONDS,
    seconds(body["expires_in"]) ?? 0,
  );
}

function denialReason(reason: Json | undefined): AccessDeniedError["reason"] {
  return reason === "policy" || reason === "approval_required" || reason === "human" ? reason : "other";
}

function seconds(value: Json | undefined): number | undefined {
  return typeof value === "number" && value >= 0 ? value : undefined;
}

/** What a server says ends in logs and on terminals. */
function plain(value: Json | undefined): string | undefined {
  return typeof value === "string" ? value.replace(/\p{Cc}/gu, "").slice(0, MAX_TEXT_LENGTH) : undefined;
}

/** RFC 8628 §3.5. */
const DEFAULT_INTERVAL_SECONDS = 5;
const MAX_TEXT_LENGTH = 512;
