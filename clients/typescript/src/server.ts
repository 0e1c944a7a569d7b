/**
 * For MCP servers: let through the calls that were granted, and nothing else.
 *
 * @packageDocumentation
 */

export type { AwsCredentialsProvider, AwsIdentity } from "./aws/credentials.js";
export { awsCredentialsFromGuard, type RequestHeaders } from "./aws/from-guard.js";
export type { AwsRequest } from "./aws/request.js";
export { type GrantedDetail, levelOf, type ToolCallClaims } from "./call/claims.js";
export { type Constraint, checkConstraints, ConstraintError, type Constraints, readConstraints } from "./call/constraints.js";
export { callDigest, type CallInput, manifestDigest, toolDigest } from "./call/digest.js";
export { JsonError, parseObject, type Json, type JsonObject, type JsonProblem } from "./call/json.js";
export { JwsError, type JwsProblem } from "./call/jws.js";
export { KeySet } from "./call/keys.js";
export type { Level } from "./call/level.js";
export { PinnedSchema, SchemaError } from "./call/schema.js";
export { type ExpectedToken, verifyToken } from "./call/token.js";
export {
  AccessDeniedError, AwsCredentialsExpiredError, ConfigurationError, DeputizeError, ExchangeError, ProtocolError,
  type Refused, RetryLaterError, UnreachableError,
} from "./client/errors.js";
export type { DeputizeClient } from "./client/client.js";
export type { FetchLike } from "./client/transport.js";
export { type Clock, systemClock } from "./clock.js";
export type { GuardConfig, GuardSettings } from "./guard/config.js";
export { type Examined, Guard, type Outside } from "./guard/guard.js";
export type { IncomingCall } from "./guard/headers.js";
export type { DriftedTool, ObservedTools, Visible } from "./guard/known.js";
export { Reason, type ReasonKind } from "./guard/reason.js";
export { Refusal } from "./guard/refusal.js";
export { readRevocation, type Revocation } from "./guard/revocation.js";
export { type Pinned, SnapshotError } from "./guard/pin.js";
export { openSnapshot, readSnapshot, type Snapshot } from "./guard/snapshot.js";
export type {
  Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream,
} from "./guard/verified.js";
export { linkGuard, type LinkedGuard, type LinkedGuardSettings } from "./link/link.js";
export { snapshotFile, type SnapshotMemory } from "./link/memory.js";
export type { GuardEvent } from "./link/reporter.js";
export { type AuthInfo, type HandlerContext, type McpHandler, type ToolContext, verifiedCall } from "./serve/context.js";
export type { Limits } from "./serve/limits.js";
export { type RecordSettings, registryRecord, type ToolRisk } from "./serve/record.js";
export { type Arrival, type LinkedGuardLike, metadataUrl, protect, type Protected, type ProtectSettings } from "./serve/protect.js";
