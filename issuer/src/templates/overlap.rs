//! Whether two templates could match one call. Where that cannot be excluded they overlap.

use super::file::Match;

/// Whether some call could be matched by both.
///
/// Only what one call cannot have twice keeps two templates apart: its server, tool and tenant, the length of its chain,
/// and a claim for which they name no value in both (a claim with several values matches no template). Groups and
/// roles do not: a person can have both.
pub(super) fn can_both_match(one: &Match, other: &Match) -> bool {
    let same_call = one.server == other.server && one.tool == other.tool && one.tenant == other.tenant;
    let depths_meet = one.chain_depth.minimum.max(other.chain_depth.minimum)
        <= one.chain_depth.maximum.min(other.chain_depth.maximum);
    let claims_meet = one.claims.iter().all(|(claim, values)| {
        other.claims.get(claim).is_none_or(|others| values.iter().any(|value| others.contains(value)))
    });
    same_call && depths_meet && claims_meet
}
