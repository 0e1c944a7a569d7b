"""One call and its token: strict JSON, digests, claims, and the verification of tokens and proofs."""
