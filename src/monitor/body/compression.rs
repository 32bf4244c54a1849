//! Content encodings, with a bound on what comes out: twenty kilobytes of gzip can hold twenty megabytes.
//!
//! Nothing here reads what comes out. Invariant: no more memory is taken than the bound, and for snappy, which says
//! its length first, no more than such a body can hold.

use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};
use std::{borrow::Cow, io::Read};

use super::DecodeError;

/// The most bytes of a body as it arrives. One export of ten thousand series takes about two megabytes.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The most bytes of a body after decompression.
pub const MAX_DECOMPRESSED_BYTES: usize = 16 * 1024 * 1024;

/// What a body in one of [`Encoding`] may name.
const ALLOWED: &str = "gzip, deflate or identity";

/// The most bytes that one byte of a snappy block can stand for: three bytes copy up to 64.
const MOST_SNAPPY_GROWTH: usize = 22;

/// How a body of OTLP or of plain samples is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip, of one or more members.
    Gzip,
    /// A zlib stream.
    Deflate,
}

impl Encoding {
    /// The encoding that a `Content-Encoding` names; none means not at all.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedEncoding`] for any other encoding and for several at once.
    pub fn of_header(header: Option<&str>) -> Result<Self, DecodeError> {
        let given = header.unwrap_or_default().trim();
        match given.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            _ => Err(DecodeError::unsupported_encoding(given, ALLOWED)),
        }
    }
}

/// The body without its compression, within both bounds: that of bodies as they arrive, and so many bytes after
/// decompression. An empty body is empty in any encoding.
pub(in crate::monitor) fn decompress(
    body: &[u8],
    encoding: Encoding,
    most: usize,
) -> Result<Cow<'_, [u8]>, DecodeError> {
    check_size(body)?;
    match encoding {
        _ if body.is_empty() => Ok(Cow::Borrowed(body)),
        Encoding::Identity => Ok(Cow::Borrowed(body)),
        Encoding::Gzip => gunzip(body, most).map(Cow::Owned),
        Encoding::Deflate => inflate(body, most).map(Cow::Owned),
    }
}

const fn check_size(body: &[u8]) -> Result<(), DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(DecodeError::TooLarge { most: MAX_BODY_BYTES, decompressed: false });
    }
    Ok(())
}

/// The body without its snappy compression (the block format, without frames), within both bounds. The length that
/// it claims is looked at before anything is decompressed.
pub(in crate::monitor) fn unsnap(body: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    check_size(body)?;
    let refused = |why: String| DecodeError::Compression { encoding: "snappy", why };
    let claimed = snap::raw::decompress_len(body).map_err(|error| refused(error.to_string()))?;
    if claimed > body.len() * MOST_SNAPPY_GROWTH {
        let held = body.len();
        return Err(refused(format!("it claims {claimed} bytes, more than {held} bytes of it can hold")));
    }
    if claimed > most {
        return Err(too_large(most));
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(|error| refused(error.to_string()))
}

const fn too_large(most: usize) -> DecodeError {
    DecodeError::TooLarge { most, decompressed: true }
}

fn gunzip(body: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::with_capacity((body.len() * 4).min(most));
    MultiGzDecoder::new(body)
        .take(most as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| DecodeError::Compression { encoding: "gzip", why: error.to_string() })?;
    if plain.len() > most { Err(too_large(most)) } else { Ok(plain) }
}

/// The reader of flate2 takes a cut zlib stream for a whole one; its state machine tells them apart.
fn inflate(body: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let refused = |why: String| DecodeError::Compression { encoding: "deflate", why };
    let mut stream = Decompress::new(true);
    let mut plain = Vec::with_capacity((body.len() * 4).clamp(1024, most));
    loop {
        let consumed = usize::try_from(stream.total_in()).map_or(body.len(), |read| read.min(body.len()));
        let before = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress_vec(&body[consumed..], &mut plain, FlushDecompress::None)
            .map_err(|error| refused(error.to_string()))?;
        if plain.len() > most {
            return Err(too_large(most));
        }
        match status {
            Status::StreamEnd if stream.total_in() == body.len() as u64 => return Ok(plain),
            Status::StreamEnd => return Err(refused("bytes follow the end of the stream".to_owned())),
            Status::Ok | Status::BufError => {
                let moved = before != (stream.total_in(), stream.total_out());
                if plain.len() == plain.capacity() {
                    plain.reserve(plain.capacity());
                } else if !moved || stream.total_in() == body.len() as u64 {
                    return Err(refused("the stream is cut short".to_owned()));
                }
            }
        }
    }
}
