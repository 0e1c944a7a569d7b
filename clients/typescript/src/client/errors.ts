/** What can go wrong: one class for each thing that a caller can do about it. */

/** Any error of this package. */
export class DeputizeError extends Error {
  override readonly name: string = "DeputizeError";

  constructor(
    message: string,
    /** What to do about it, in a sentence. */
    readonly whatToDo: string,
    options?: ErrorOptions,
  ) {
    super(`${message}: ${whatToDo}`, options);
  }
}

/** Something given to this package cannot be used. */
export class ConfigurationError extends DeputizeError {
  override readonly name = "ConfigurationError";
}

/** What the broker says of an error. Control characters are taken out, lengths are bounded. */
export interface Refused {
  /** HTTP status. */
  readonly status: number;
  /** `error` (RFC 6749 §5.2 and those that build on it). */
  readonly error: string;
  /** `error_description`. */
  readonly description: string;
  /** `decision_id`: what an operator asks `deputize explain` about. */
  readonly decisionId: string | undefined;
}

/** The broker refused: there is no token. */
export class ExchangeError extends DeputizeError implements Refused {
  override readonly name: string = "ExchangeError";
  readonly status: number;
  readonly error: string;
  readonly description: string;
  readonly decisionId: string | undefined;

  constructor(refused: Refused, whatToDo: string = adviceOn(refused.error)) {
    const decision = refused.decisionId === undefined ? "" : ` (decision ${refused.decisionId})`;
    super(`${refused.error || `status ${refused.status}`}: ${refused.description}${decision}`, whatToDo);
    this.status = refused.status;
    this.error = refused.error;
    this.description = refused.description;
    this.decisionId = refused.decisionId;
  }
}

/** Policy or a person said no. */
export class AccessDeniedError extends ExchangeError {
  override readonly name = "AccessDeniedError";

  constructor(
    refused: Refused,
    /** Who said no: `approval_required` where a person would have to approve and approvals are not configured. */
    readonly reason: "policy" | "approval_required" | "human" | "other",
    whatToDo?: string,
  ) {
    super(refused, whatToDo);
  }
}

/** A person has to decide first. */
export class ApprovalPendingError extends ExchangeError {
  override readonly name = "ApprovalPendingError";

  constructor(
    refused: Refused,
    /** Put it into the next request's `approvalId`. */
    readonly approvalId: string,
    /** Where the person decides. */
    readonly approvalUri: string | undefined,
    /** Least pause between two tries, in seconds. */
    readonly intervalSeconds: number,
    /** How long the approval waits, in seconds. */
    readonly expiresInSeconds: number,
  ) {
    super(refused);
  }
}

/** The user has to sign in again, more strongly or more recently (RFC 9470). */
export class SignInRequiredError extends ExchangeError {
  override readonly name = "SignInRequiredError";

  constructor(
    refused: Refused,
    /** Any of these satisfies; empty if only the age counts. */
    readonly acrValues: readonly string[],
    /** How old the sign-in may be, in seconds. */
    readonly maxAgeSeconds: number | undefined,
  ) {
    super(refused);
  }
}

/** Over a rate or a budget, or the broker cannot decide now. */
export class RetryLaterError extends ExchangeError {
  override readonly name = "RetryLaterError";

  constructor(
    refused: Refused,
    /** Seconds after which to come back, where the broker said so. */
    readonly retryAfterSeconds: number | undefined,
  ) {
    super(refused, "come back later, after retryAfterSeconds where it is given");
  }
}

/** The call has run longer than the window of its AWS credentials. It gets no others. */
export class AwsCredentialsExpiredError extends DeputizeError {
  override readonly name = "AwsCredentialsExpiredError";

  constructor() {
    super(
      "the window of the call's AWS credentials is over",
      "do what needs them early in the call, have the template's window widened, or let the agent call again",
    );
  }
}

/** The broker cannot be reached. */
export class UnreachableError extends DeputizeError {
  override readonly name = "UnreachableError";

  constructor(what: string, cause: unknown) {
    super(`${what} cannot be reached`, "check its address and the network between", { cause });
  }
}

/** The broker's answer is not one. */
export class ProtocolError extends DeputizeError {
  override readonly name = "ProtocolError";

  constructor(what: string) {
    super(what, "check that the issuer is the address of a Deputize broker of this version");
  }
}

/** The server offers a tool under another definition than the one that was approved: nothing was sent. */
export class ToolChangedError extends DeputizeError {
  override readonly name = "ToolChangedError";

  constructor(
    /** The tool's name. */
    readonly tool: string,
    /** Digest of the definition that the server gives now; absent where it lists no such tool. */
    readonly liveDigest: string | undefined,
    /** Digest of the approved definition, as the token has it. */
    readonly approvedDigest: string | undefined,
    /** The decision that made the token. */
    readonly decisionId: string | undefined,
  ) {
    super(...changed(tool, liveDigest));
  }
}

function changed(tool: string, liveDigest: string | undefined): [message: string, whatToDo: string] {
  const named = JSON.stringify(tool.slice(0, 128));
  if (liveDigest === undefined) return [`the server does not list ${named}`, "call a tool that it lists"];
  return [
    `the server's definition of ${named} is not the approved one`,
    "have the change reviewed in the registry (`deputize registry diff`), or distrust the server",
  ];
}

function adviceOn(error: string): string {
  return ADVICE.get(error) ?? "ask the operator of the broker, with the decision's id";
}

/** By the codes of RFC 6749, 8693, 9396, 9449, 9470 and 8628. */
const ADVICE = new Map([
  ["invalid_request", "check that the user's token is fresh and of an issuer that the broker knows"],
  ["invalid_target", "check the server's resource URI, and that it is registered and enabled"],
  ["invalid_scope", "ask for less, or have the client's rights widened"],
  ["invalid_authorization_details", "check the tool's name, its arguments, and that its definition is approved"],
  ["invalid_client", "check the client's id and key"],
  ["invalid_dpop_proof", "check this machine's clock"],
  ["use_dpop_nonce", "try again"],
  ["access_denied", "do something else, or ask the operator with the decision's id"],
  ["authorization_pending", "wait for a person to decide, then ask again with the approval's id"],
  ["slow_down", "wait longer between two tries"],
  ["expired_token", "nobody decided in time: ask anew, without the approval's id"],
  ["insufficient_user_authentication", "let the user sign in again as acrValues and maxAgeSeconds say"],
]);
