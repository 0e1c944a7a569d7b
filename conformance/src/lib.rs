//! Black-box suites: what must hold, what must be refused, seen from outside.
