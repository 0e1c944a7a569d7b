//! Signing users in at OpenID providers, as a client of them: for the story that `dev` tells, and for the agent's side.

mod loopback;
mod provider;
mod user;
#[cfg(test)]
mod wall_clock;

pub(crate) use provider::{Provider, SignInError, SignedIn};
pub(crate) use user::SignedInUser;
