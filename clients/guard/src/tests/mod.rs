mod binding;
mod body;
mod callers;
pub(crate) mod fixture;
mod possession;
mod properties;
mod reads;
mod state;
