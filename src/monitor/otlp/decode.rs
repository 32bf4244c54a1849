//! The one entrance for bodies: what the headers say, then decompression, then decoding.

use super::{
    assemble::Assembler,
    compression::{self, Encoding, MAX_DECOMPRESSED_BYTES},
    json, protobuf,
};
use crate::monitor::Batch;

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
            Err(DecodeError::UnsupportedType(given.chars().take(80).collect()))
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
}

/// Why a body is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The content type is none of OTLP's.
    #[error("content type {0:?} is not supported; send application/x-protobuf or application/json")]
    UnsupportedType(String),
    /// The content encoding is not supported.
    #[error("content encoding {0:?} is not supported; send gzip, deflate or identity")]
    UnsupportedEncoding(String),
    /// It is larger than a body may be.
    #[error("the body has more than {most} bytes{}", if *decompressed { " after decompression" } else { "" })]
    TooLarge {
        /// The limit.
        most: usize,
        /// Whether it is the limit after decompression.
        decompressed: bool,
    },
    /// It is not what its content encoding says.
    #[error("the body is not valid {encoding}: {why}")]
    Compression {
        /// The encoding that was named.
        encoding: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It is no metrics request in the form that its content type names.
    #[error("the body is no OTLP metrics request in {}: {why}", format.content_type())]
    Malformed {
        /// The form that was named.
        format: Format,
        /// What is wrong.
        why: String,
    },
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
    let plain = compression::decompress(body, encoding, most)?;
    let malformed = |why: String| DecodeError::Malformed { format, why };
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
