mod asking;
mod caching;
mod discovery;
mod refusals;
mod stub;
