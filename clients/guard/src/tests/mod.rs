mod binding;
mod body;
pub(crate) mod fixture;
mod possession;
mod properties;
mod reads;
mod state;
