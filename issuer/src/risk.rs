//! A score from 0 to 100 with its reasons (S-15): shown to policy, to approvers and in the record. It decides nothing.

use deputize_call::level::Level;

use crate::registry::{DataClass, Effect, Server, Tier, Tool};

/// How risky a call looks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Risk {
    /// 0–100.
    pub score: u8,
    /// Constant words, in the order of their weight.
    pub reasons: Vec<&'static str>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The server.
    pub server: &'a Server,
    /// The tool, but for listing.
    pub tool: Option<&'a Tool>,
    /// The level asked for.
    pub level: Level,
    /// How many agents stand between the user and the call, beyond the first.
    pub delegation_depth: usize,
    /// Whether the arguments are seen.
    pub arguments_seen: bool,
}

/// Adds up what makes a call risky.
pub fn assess(look: &Look<'_>) -> Risk {
    let Some(tool) = look.tool else { return Risk { score: 0, reasons: Vec::new() } };
    let data_class = tool.record.data_class.unwrap_or(look.server.record.data_class);
    let parts: [(u8, &'static str, bool); 9] = [
        (60, "tier_critical", tool.record.tier == Tier::Critical),
        (40, "tier_high", tool.record.tier == Tier::High),
        (20, "tier_medium", tool.record.tier == Tier::Medium),
        (20, "writes", tool.record.effect == Effect::Write),
        (20, "restricted_data", data_class == DataClass::Restricted),
        (10, "confidential_data", data_class == DataClass::Confidential),
        (10, "delegated_onward", look.delegation_depth > 0),
        (10, "arguments_not_seen", look.level == Level::L3 && !look.arguments_seen),
        (5, "not_bound_to_arguments", look.level <= Level::L1),
    ];
    let holding = parts.into_iter().filter(|(_, _, holds)| *holds);
    let (score, reasons) = holding.fold((0_u8, Vec::new()), |(score, mut reasons), (points, reason, _)| {
        reasons.push(reason);
        (score.saturating_add(points), reasons)
    });
    Risk { score: score.min(100), reasons }
}
