/**
 * For agents: exchange a user's token for one that is good for one tool call, and let the MCP SDK send it.
 *
 * @packageDocumentation
 */

export type { AwsIdentity } from "./aws/credentials.js";
export type { AwsRequest } from "./aws/request.js";
export type { Constraint } from "./call/constraints.js";
export { callDigest, toolDigest, type CallInput } from "./call/digest.js";
export { JsonError, parseObject, type Json, type JsonObject, type JsonProblem } from "./call/json.js";
export type { Level } from "./call/level.js";
export {
  type ClientSettings, DeputizeClient, type Introspection, type Redemption, type WaitOptions,
} from "./client/client.js";
export {
  AccessDeniedError, ApprovalPendingError, ConfigurationError, DeputizeError, ExchangeError, ProtocolError,
  type Refused, RetryLaterError, SignInRequiredError, ToolChangedError, UnreachableError,
} from "./client/errors.js";
export { createMcpFetch, type McpFetchSettings } from "./client/mcp-fetch.js";
export type { Detail, ExchangeRequest, TokenType } from "./client/request.js";
export { type Granted, ToolToken } from "./client/token.js";
export type { FetchLike } from "./client/transport.js";
export { type Clock, systemClock } from "./clock.js";
