mod calls;
mod definitions;
mod front;
mod refusals;
mod streams;
mod user;
mod world;
