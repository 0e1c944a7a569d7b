/**
 * Credentials as a broker or a guard answers with them, read strictly enough to be signed with. Nothing that was read is
 * in an error.
 */

import type { JsonObject } from "../call/json.js";
import { ProtocolError } from "../client/errors.js";
import type { AwsIdentity } from "./credentials.js";

/** Reads what a broker answers: the shape of `credential_process`, with the decision's id. */
export function readProcess(body: JsonObject): AwsIdentity {
  if (body["Version"] !== 1) throw new ProtocolError("the answer has no AWS credentials");
  return read(body, "SessionToken");
}

/** Reads what a guard answers: the shape of a container's credentials. */
export function readContainer(body: JsonObject): AwsIdentity {
  return read(body, "Token");
}

function read(body: JsonObject, tokenName: "SessionToken" | "Token"): AwsIdentity {
  const part = (name: string, longest: number): string => {
    const value = body[name];
    // They go into header fields: printable, and no space.
    if (typeof value === "string" && value.length <= longest && /^[!-~]+$/.test(value)) return value;
    throw new ProtocolError("the AWS credentials in the answer are malformed");
  };
  const [accountId, decisionId] = [body["AccountId"], body["decision_id"]];
  return {
    accessKeyId: part("AccessKeyId", 128),
    secretAccessKey: part("SecretAccessKey", 256),
    sessionToken: part(tokenName, 16_384),
    expiration: instant(part("Expiration", 20)),
    ...(typeof accountId === "string" && /^[0-9]{12}$/.test(accountId) ? { accountId } : {}),
    ...(typeof decisionId === "string" && /^[!-~]{1,128}$/.test(decisionId) ? { decisionId } : {}),
  };
}

function instant(text: string): Date {
  const date = new Date(text);
  // What is no date on any calendar would be read as another one.
  const isThat = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) && !Number.isNaN(date.getTime());
  if (isThat && date.toISOString() === text.replace("Z", ".000Z")) return date;
  throw new ProtocolError("the AWS credentials in the answer are malformed");
}
