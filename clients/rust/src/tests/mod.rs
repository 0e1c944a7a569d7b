mod asking;
mod aws;
mod caching;
mod discovery;
mod refusals;
mod stub;
