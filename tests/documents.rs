//! Documents of any shape: what is accepted, and everything else that is refused, by all three verifiers that
//! this repository ships: the library, `quorate verify` and `examples/verify.py`, which shares no code with them.

#[path = "support/documents.rs"]
mod fixture;

#[path = "documents/crafted.rs"]
mod crafted;
#[path = "documents/mutations.rs"]
mod mutations;
#[path = "documents/requests.rs"]
mod requests;
#[path = "documents/table.rs"]
mod table;
#[path = "documents/verifiers.rs"]
mod verifiers;
#[path = "documents/wycheproof.rs"]
mod wycheproof;
