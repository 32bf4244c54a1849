//! What the forms of telemetry share: compression, the protobuf wire format, and the assembler that turns what a
//! decoder meets into a [`Batch`](super::Batch).
//!
//! Nothing here knows a message or keeps state. Invariant: what comes out of a body takes no more memory than the
//! bounds here say, whatever the body claims.

mod compression;
mod error;

pub(in crate::monitor) mod assemble;
pub(in crate::monitor) mod nested;
pub(in crate::monitor) mod wire;

pub(in crate::monitor) use compression::{decompress, unsnap};

pub use assemble::{MAX_ATTRIBUTES, MAX_IDENTITY_BYTES, MAX_NAME_BYTES};
pub use compression::{Encoding, MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES};
pub use error::DecodeError;
