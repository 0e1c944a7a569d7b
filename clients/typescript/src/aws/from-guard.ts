/** For a server behind the guard proxy: the credentials of a call, from the loopback address that came with it. */

import { Agent, get, type IncomingMessage } from "node:http";
import { type JsonObject, parseObject } from "../call/json.js";
import { readRefusal } from "../client/answer.js";
import { AwsCredentialsExpiredError, ConfigurationError, ProtocolError, UnreachableError } from "../client/errors.js";
import type { Received } from "../client/transport.js";
import { type Clock, systemClock } from "../clock.js";
import { readContainer } from "./answer.js";
import { type AwsCredentialsProvider, type AwsIdentity, Kept } from "./credentials.js";

/** Header fields of a request: those of the web standard, or of Node and of the MCP SDK. */
export type RequestHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/**
 * The AWS credentials of the call that a request is, in a server that the guard proxy stands before (Node, Deno, Bun).
 *
 * The guard says in the request's headers where they are, with a secret; both die with the call.
 *
 * @throws {@link ConfigurationError}: the request names no such address: the guard runs without `--aws-credentials`, or
 * the request did not come through it.
 */
export function awsCredentialsFromGuard(headers: RequestHeaders, clock: Clock = systemClock): AwsCredentialsProvider {
  const [uri, secret] = [single(headers, URI), single(headers, AUTHORIZATION)];
  if (uri === undefined || secret === undefined) {
    throw new ConfigurationError(
      "the request brings no address of AWS credentials",
      "start the guard with --aws-credentials, and let requests come through it alone",
    );
  }
  const url = loopback(uri);
  if (url === undefined || !SECRET.test(secret)) {
    const what = url === undefined ? `${URI} is no address of a guard on this machine` : `${AUTHORIZATION} is no secret of a guard`;
    throw new ConfigurationError(what, "let requests come through the guard alone");
  }
  return new Kept(() => fetched(url, secret), clock).provider;
}

/** Where to ask: a guard's path on this machine, and nothing else, whoever wrote the header. */
function loopback(uri: string): URL | undefined {
  return ADDRESS.test(uri) && URL.canParse(uri) ? new URL(uri) : undefined;
}

function single(headers: RequestHeaders, name: string): string | undefined {
  if (headers instanceof Headers) return headers.get(name) ?? undefined;
  const found = Object.entries(headers).filter(([each]) => each.toLowerCase() === name).flatMap(([, value]) => value ?? []);
  return found.length === 1 ? found[0] : undefined;
}

async function fetched(url: URL, secret: string): Promise<AwsIdentity> {
  const { status, body, ...more } = await answer(url, secret);
  // Address and secret die with the call.
  if (status === 404) throw new AwsCredentialsExpiredError();
  if (status === 200) return readContainer(body);
  // An error in the form of a container's credentials: the guard's words for what the broker said.
  const said: JsonObject = { error: body["code"] ?? "", error_description: body["message"] ?? "" };
  throw readRefusal({ ...more, status, body: said }, ADVICE);
}

/** Neither proxies nor redirects: this asks this machine, once. */
async function answer(url: URL, secret: string): Promise<Received> {
  const agent = new Agent({ keepAlive: false });
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { authorization: secret, accept: "application/json" };
      get(url, { agent, headers, signal: AbortSignal.timeout(ANSWER_MS) }, resolve).once("error", reject);
    });
    const { statusCode: status = 0, headers: { "retry-after": pause = "" } } = response;
    const retryAfterSeconds = /^[0-9]{1,9}$/.test(pause) ? Number(pause) : undefined;
    return { status, body: await read(response), dpopNonce: undefined, retryAfterSeconds };
  } catch (error) {
    if (error instanceof ProtocolError) throw error;
    throw new UnreachableError("the guard's AWS credentials", error);
  } finally {
    agent.destroy();
  }
}

async function read(response: IncomingMessage): Promise<JsonObject> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > MAX_BYTES) throw new ProtocolError("the guard's answer is too long");
    chunks.push(chunk);
  }
  try {
    return parseObject(Buffer.concat(chunks));
  } catch {
    return {};
  }
}

const URI = "deputize-aws-credentials-uri";
const AUTHORIZATION = "deputize-aws-authorization";
const ADDRESS = /^http:\/\/(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]):\d{1,5}\/aws\/[A-Za-z0-9_-]{16,256}$/;
const SECRET = /^[!-~]{16,512}$/;
const ADVICE = new Map([
  ["Denied", "look at the guard's log: the decision's id is there, for `deputize explain`"],
  ["Broken", "look at the guard's log: the broker's answer to it was none"],
]);
/** The guard asks the broker, and that asks AWS. */
const ANSWER_MS = 20_000;
const MAX_BYTES = 64 * 1024;
