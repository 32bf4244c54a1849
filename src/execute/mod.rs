//! Execute: what agents pull and how they act on it.

pub mod feed;
