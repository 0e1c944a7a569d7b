//! Nothing: only the tests count.
