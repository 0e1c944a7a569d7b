//! Where an authority stands, and what is due: by time alone, or because somebody wants it.
//!
//! Half of the active one's life over, the next is prepared; after five sixths it takes over. What it signed then still
//! holds until its own end, and with that the old one goes. The same holds for keys of JWT-SVIDs.

use serde::{Deserialize, Serialize};

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
}

/// Where an authority stands. One that is revoked, or whose time is over, stands nowhere: it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// In the bundle; signs nothing yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no more; what it signed still holds.
    Old,
    /// Signs no more, and what it signed is replaced.
    Tainted,
}

/// The life of one authority, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Where it stands.
    pub stage: Stage,
    /// Since when.
    pub since_seconds: u64,
    /// When its life began.
    pub not_before_seconds: u64,
    /// When it ends: nothing that it signs holds longer.
    pub not_after_seconds: u64,
    /// When it is to sign, where somebody said so.
    pub activates_at_seconds: Option<u64>,
}

/// What is due; numbers are places among the lives that were asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// A new one.
    Prepare,
    /// This one signs from now on, and the one that did is old.
    Activate(usize),
    /// This one goes.
    Drop(usize),
}

/// Why something cannot be done with an authority now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// One is prepared already.
    #[error("one is prepared already")]
    AlreadyPrepared,
    /// None is prepared.
    #[error("none is prepared")]
    NonePrepared,
    /// Not everybody has it yet.
    #[error("it was prepared {0} seconds ago: not everybody who verifies has it yet")]
    NotKnownYet(u64),
    /// It signs.
    #[error("it is the one that signs")]
    Signs,
    /// It has signed nothing.
    #[error("it has signed nothing yet")]
    SignedNothing,
    /// It is tainted already.
    #[error("it is tainted already")]
    AlreadyTainted,
    /// There is none of this name.
    #[error("there is no such authority")]
    Unknown,
    /// What it signed still holds.
    #[error("what it signed is still in use, and nobody was told to replace it")]
    InUse,
}

/// What is due first at this moment, if anything. To be asked again once it is done.
pub(super) fn due(lives: &[Life], now_seconds: u64) -> Option<Due> {
    // INVARIANT: the one that signs never goes; where its time is over, another takes its place.
    let is_over = |life: &Life| life.stage != Stage::Active && life.not_after_seconds <= now_seconds;
    if let Some(over) = lives.iter().position(is_over) {
        return Some(Due::Drop(over));
    }
    let prepared = place(lives, Stage::Prepared);
    let Some(active) = place(lives, Stage::Active) else {
        return Some(prepared.map_or(Due::Prepare, |(at, _)| Due::Activate(at)));
    };
    match prepared {
        None => (now_seconds >= part_of_life(active.1, 1, 2)).then_some(Due::Prepare),
        Some((at, next)) => (now_seconds >= activation(active.1, next)).then_some(Due::Activate(at)),
    }
}

/// When a prepared one is to take over from the active one.
pub fn activation(active: &Life, next: &Life) -> u64 {
    let wanted = next.activates_at_seconds.unwrap_or_else(|| part_of_life(active, 5, 6));
    // Whoever verifies asks for the bundle now and then: nothing is signed that it cannot know …
    let known = next.since_seconds.saturating_add(propagation(next));
    // … unless the active one ends before, when nothing else could be signed at all.
    let end = active.not_after_seconds.saturating_sub(lifespan(active) / LAST_PART);
    wanted.max(known).min(end)
}

/// Whether a further one may be prepared.
///
/// # Errors
/// [`NotNow::AlreadyPrepared`].
pub(super) fn may_prepare(lives: &[Life]) -> Result<(), NotNow> {
    if place(lives, Stage::Prepared).is_some() { Err(NotNow::AlreadyPrepared) } else { Ok(()) }
}

/// Which one may take over now; `at_once`: whether or not everybody has it.
///
/// # Errors
/// [`NotNow::NonePrepared`], [`NotNow::NotKnownYet`].
pub(super) fn may_activate(lives: &[Life], now_seconds: u64, at_once: bool) -> Result<usize, NotNow> {
    let (at, next) = place(lives, Stage::Prepared).ok_or(NotNow::NonePrepared)?;
    let age = now_seconds.saturating_sub(next.since_seconds);
    if !at_once && age < propagation(next) {
        return Err(NotNow::NotKnownYet(age));
    }
    Ok(at)
}

/// Whether what this one signed may be replaced.
///
/// # Errors
/// [`NotNow::Signs`], [`NotNow::SignedNothing`], [`NotNow::AlreadyTainted`].
pub(super) fn may_taint(life: &Life) -> Result<(), NotNow> {
    match life.stage {
        Stage::Old => Ok(()),
        Stage::Active => Err(NotNow::Signs),
        Stage::Prepared => Err(NotNow::SignedNothing),
        Stage::Tainted => Err(NotNow::AlreadyTainted),
    }
}

/// Whether this one may go from the bundle before its time.
///
/// # Errors
/// [`NotNow::Signs`], [`NotNow::InUse`].
pub(super) fn may_revoke(life: &Life) -> Result<(), NotNow> {
    match life.stage {
        Stage::Prepared | Stage::Tainted => Ok(()),
        Stage::Active => Err(NotNow::Signs),
        Stage::Old => Err(NotNow::InUse),
    }
}

fn place(lives: &[Life], stage: Stage) -> Option<(usize, &Life)> {
    lives.iter().enumerate().find(|(_, life)| life.stage == stage)
}

/// How long one is in the bundle before it signs, in seconds: everybody has asked twice by then.
fn propagation(life: &Life) -> u64 {
    PROPAGATION_SECONDS.min(lifespan(life) / 6)
}

fn lifespan(life: &Life) -> u64 {
    life.not_after_seconds.saturating_sub(life.not_before_seconds)
}

fn part_of_life(life: &Life, part: u64, of: u64) -> u64 {
    life.not_before_seconds.saturating_add(lifespan(life).saturating_mul(part) / of)
}

/// Twice the refresh hint of the bundle.
const PROPAGATION_SECONDS: u64 = 2 * super::REFRESH_HINT_SECONDS;
/// The sixtieth part of a life is too short to sign in.
const LAST_PART: u64 = 60;
