//! The one entrance for bodies: what the headers say, then decompression, then decoding.

use super::{json, protobuf};
use crate::monitor::{
    Batch,
    body::{DecodeError, Encoding, MAX_DECOMPRESSED_BYTES, assemble::Assembler, decompress},
};

/// What a `Content-Type` may name.
const ALLOWED: &str = "application/x-protobuf or application/json";

/// The two forms of OTLP over HTTP. An answer has the form of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Format {
    /// The form that a `Content-Type` names; letter case and parameters do not matter.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedType`] for any other type and for none.
    pub fn of_content_type(content_type: Option<&str>) -> Result<Self, DecodeError> {
        let given = content_type.unwrap_or_default();
        let media_type = given.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-protobuf") {
            Ok(Self::Protobuf)
        } else if media_type.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else {
            Err(DecodeError::unsupported_type(given, ALLOWED))
        }
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// What is expected, in words.
    pub(super) const fn expected(self) -> &'static str {
        match self {
            Self::Protobuf => "OTLP metrics request in application/x-protobuf",
            Self::Json => "OTLP metrics request in application/json",
        }
    }
}

/// The points of a metrics request's body.
///
/// # Errors
/// [`DecodeError`] when the body is refused whole. Points that are refused alone are counted in the batch.
pub fn decode(
    body: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
) -> Result<Batch, DecodeError> {
    decode_within(body, content_type, content_encoding, MAX_DECOMPRESSED_BYTES)
}

/// The same for bodies of at most so many bytes after decompression.
///
/// # Errors
/// [`DecodeError`] when the body is refused whole.
pub fn decode_within(
    body: &[u8],
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    most: usize,
) -> Result<Batch, DecodeError> {
    let format = Format::of_content_type(content_type)?;
    let encoding = Encoding::of_header(content_encoding)?;
    let plain = decompress(body, encoding, most)?;
    let malformed = |why: String| DecodeError::Malformed { expected: format.expected(), why };
    match format {
        Format::Protobuf => {
            let mut assembler = Assembler::for_body(plain.len());
            protobuf::read_request(&plain, &mut assembler).map_err(|error| malformed(error.to_string()))?;
            Ok(assembler.finish())
        }
        Format::Json => {
            let request = json::parse(&plain).map_err(|error| malformed(error.to_string()))?;
            let mut assembler = Assembler::for_body(plain.len());
            request.read(&mut assembler);
            Ok(assembler.finish())
        }
    }
}
