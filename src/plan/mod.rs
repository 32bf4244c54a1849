//! Plan: a pure function from a snapshot and findings to plans, and the checker that may reject them.
