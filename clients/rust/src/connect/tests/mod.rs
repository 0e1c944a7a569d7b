mod calls;
mod definitions;
mod refusals;
mod streams;
mod user;
mod world;
