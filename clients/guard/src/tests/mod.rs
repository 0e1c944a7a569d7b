mod binding;
mod body;
mod fixture;
mod possession;
mod properties;
mod state;
