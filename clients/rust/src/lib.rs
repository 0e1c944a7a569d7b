//! Exchange a user's JWT for tool-call tokens: DPoP, nonces, caching where the level allows.
