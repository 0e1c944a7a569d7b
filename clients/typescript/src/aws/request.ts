/** What is asked for the credentials of a call, and what is made of the answer. */

import { type Json, type JsonObject, parseObject } from "../call/json.js";
import { readRefusal } from "../client/answer.js";
import { ConfigurationError, ProtocolError } from "../client/errors.js";
import type { Received } from "../client/transport.js";
import { readProcess } from "./answer.js";
import type { AwsIdentity } from "./credentials.js";
import type { DecryptionKey } from "./sealed.js";

/** Asks for AWS credentials as the server that a token is for. */
export interface AwsRequest {
  /** The token that the server was called with. */
  readonly token: string;
  /** The arguments of that call, exactly. */
  readonly arguments: JsonObject;
  /** `inputResponses` of the call, if it has them. */
  readonly inputResponses?: Json | undefined;
  /** `requestState` of the call, if it has it. */
  readonly requestState?: Json | undefined;
  /** The role template that is expected; another is refused. */
  readonly template?: string | undefined;
}

/** The parameters, without those that prove the client. */
export function awsFormOf(request: AwsRequest): URLSearchParams {
  const form = new URLSearchParams({
    subject_token: request.token,
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    arguments: JSON.stringify(request.arguments),
  });
  const { inputResponses, requestState, template } = request;
  if (inputResponses !== undefined) form.set("input_responses", JSON.stringify(inputResponses));
  if (requestState !== undefined) form.set("request_state", JSON.stringify(requestState));
  if (template !== undefined) form.set("template", template);
  return form;
}

/** Reads the answer. */
export async function readAwsCredentials(received: Received, key: DecryptionKey | undefined): Promise<AwsIdentity> {
  if (received.status !== 200) throw readRefusal(received, ADVICE);
  if (received.mediaType === "application/jose") {
    if (key === undefined) throw new ConfigurationError(...NO_KEY);
    return readProcess(parsed(await key.open(received.bytes ?? new Uint8Array())));
  }
  // INVARIANT: where a key is configured, only sealed answers are taken: what the broker seals, whoever ends TLS on the
  // way cannot read. Who sealed it a seal does not say, for anyone can seal to a public key: that rests on TLS.
  if (key !== undefined) throw new ConfigurationError(...NOT_SEALED);
  return readProcess(received.body);
}

function parsed(text: Uint8Array): JsonObject {
  let body: JsonObject | undefined;
  try {
    body = parseObject(text);
  } catch {
    // Said below, without what was read.
  }
  if (body === undefined) throw new ProtocolError("the sealed answer is no JSON object");
  return body;
}

const NO_KEY = [
  "the broker's answer is sealed, and there is no key to open it",
  'give encryptionKey: the private half of the client\'s key with `use: "enc"` at the broker',
] as const;
const NOT_SEALED = [
  "the broker's answer is not sealed, though there is a key for that",
  'put the public half into the client\'s JWKS at the broker, with `use: "enc"`, and see who ends TLS between',
] as const;
const ADVICE = new Map([
  ["invalid_request", "ask as the server that was called, with that call's arguments, while its token is fresh"],
  ["access_denied", "have an operator ask `deputize explain` which template or policy decided"],
  ["not_found", "this broker gives no AWS credentials: have `aws` configured there"],
  ["server_error", "AWS refused the role session: have an operator ask `deputize explain` what it said"],
]);
