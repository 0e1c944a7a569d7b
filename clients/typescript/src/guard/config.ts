/** What a guard is told once, by its operator. */

/** Settings of a guard. Times that are compared with clocks of others are in seconds, those measured here in ms. */
export interface GuardSettings {
  /** The broker: `iss` of every token. */
  readonly issuer: string;
  /** This server's resource URI: `aud` of every token. */
  readonly resource: string;
  /** Public URL of the MCP endpoint: `htu` of every proof, whatever `Host` says (RFC 9449 §4.3, check 9). */
  readonly publicUrl: string;
  /** Names this process in its nonces. */
  readonly name?: string;
  /** Grace on the times of tokens; 5 s. */
  readonly leewaySeconds?: number;
  /** How far a proof's `iat` may be from now; 60 s. */
  readonly proofWindowSeconds?: number;
  /** How long a nonce is good for; 120 s. */
  readonly nonceLifetimeMs?: number;
  /** How many proofs are remembered in each of two generations; when full, calls are refused with 503. 200,000. */
  readonly proofCapacity?: number;
  /** How many tokens with a limit of uses are counted at once; when full, calls are refused with 503. 50,000. */
  readonly countedTokens?: number;
  /** The longest request body; 1 MiB. */
  readonly maxBodyBytes?: number;
  /** How old the last word about revocations may be before calls stop; 60 s, and never more. */
  readonly maxRevocationAgeMs?: number;
}

/** Settings with every default filled in. */
export interface GuardConfig extends Required<GuardSettings> {
  /** URL of the protected resource metadata (RFC 9728 §3.1), named in every challenge. */
  readonly resourceMetadata: string;
}

/** Fills in what was not said. */
export function resolveGuardSettings(settings: GuardSettings, resourceMetadata: string): GuardConfig {
  const { maxRevocationAgeMs = MAX_REVOCATION_AGE_MS } = settings;
  return {
    issuer: settings.issuer,
    resource: settings.resource,
    publicUrl: settings.publicUrl,
    name: settings.name ?? "guard",
    leewaySeconds: settings.leewaySeconds ?? 5,
    proofWindowSeconds: settings.proofWindowSeconds ?? 60,
    nonceLifetimeMs: settings.nonceLifetimeMs ?? 120_000,
    proofCapacity: settings.proofCapacity ?? 200_000,
    countedTokens: settings.countedTokens ?? 50_000,
    maxBodyBytes: settings.maxBodyBytes ?? 1024 * 1024,
    maxRevocationAgeMs: Math.min(maxRevocationAgeMs, MAX_REVOCATION_AGE_MS),
    resourceMetadata,
  };
}

const MAX_REVOCATION_AGE_MS = 60_000;
