//! Frames: length (4 bytes, little-endian, of the body), kind (1 byte), body.
//!
//! No connection here. Invariant: a body is never longer than its kind allows, and no memory is reserved for
//! bytes that are claimed and have not arrived.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Buf as _, Bytes, BytesMut};
use std::fmt;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{BUFFER_BYTES, error::LinkError};
use crate::types::{Committee, Digest, Epoch, UnixMillis};

/// The most bytes of a frame that consensus sends: a block of the largest size with its certificates.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Bytes before a body.
pub(super) const HEADER_BYTES: usize = 5;

/// The version of this link protocol.
const VERSION: u32 = 2;

const DATA: u8 = 0;
const HELLO: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;

const HELLO_BYTES: usize = 4 + 32 + 8 + PROCESS_BYTES + 1 + PROCESS_BYTES;

/// Enough that two processes never have the same number by chance.
const PROCESS_BYTES: usize = 16;
const PING_BYTES: usize = 8;
const PONG_BYTES: usize = 8 + 8;

/// What travels over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Consensus's bytes.
    Data(Bytes),
    /// The first frame of each side.
    Hello(Greeting),
    /// To be answered.
    Ping {
        /// Returns in the answer.
        number: u64,
    },
    /// The answer.
    Pong {
        /// The number of what is answered.
        number: u64,
        /// The answerer's time.
        time: UnixMillis,
    },
}

impl Frame {
    /// Takes the first frame out of what has arrived; `None` while a part of it is missing.
    ///
    /// # Errors
    /// [`FrameError`] when it begins with no frame; nothing after it can be read either.
    pub fn take(arrived: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        take(arrived).map(|taken| match taken {
            Taken::Frame(frame) => Some(frame),
            Taken::Missing(_) => None,
        })
    }

    /// Its bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        control(self)
    }
}

/// What both sides must have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    version: u32,
    cluster: Digest,
    epoch: Epoch,
}

impl Hello {
    /// What members of this committee say.
    #[must_use]
    pub const fn of(committee: &Committee) -> Self {
        Self { version: VERSION, cluster: committee.cluster(), epoch: committee.epoch() }
    }
}

/// A process, by a number that it draws when its links start. It proves nothing: it only tells two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Process([u8; PROCESS_BYTES]);

impl Process {
    /// Draws a number.
    pub(super) fn draw() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; PROCESS_BYTES];
        getrandom::fill(&mut bytes).map(|()| Self(bytes))
    }

    /// The process with this number in each byte.
    #[must_use]
    pub const fn numbered(number: u8) -> Self {
        Self([number; PROCESS_BYTES])
    }
}

/// What each side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Greeting {
    /// What both sides must have in common.
    pub hello: Hello,
    /// Which process says so.
    pub process: Process,
    /// In an answer: the process with the other side's key that was met last before.
    pub met: Option<Process>,
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link version {}, cluster {}, epoch {}", self.version, self.cluster, self.epoch)
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is longer than any of its kind.
    #[error("its length of {bytes} bytes is over the limit of {limit} for its kind")]
    TooLong {
        /// What it claims.
        bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// There is no such kind.
    #[error("its kind {0} is unknown")]
    Kind(u8),
    /// Its body is none of its kind.
    #[error("its body is malformed")]
    Body,
    /// It is a frame that nobody sends at this point.
    #[error("its kind does not belong there")]
    Unexpected,
}

/// The header of a data frame.
pub(super) fn data_header(body: &Bytes) -> [u8; HEADER_BYTES] {
    header(DATA, body.len())
}

/// The whole bytes of a frame that is not data.
pub(super) fn control(frame: &Frame) -> Vec<u8> {
    let (kind, body) = match frame {
        Frame::Data(body) => (DATA, body.to_vec()),
        Frame::Hello(hello) => (HELLO, borsh::to_vec(hello).expect("writing to memory does not fail")),
        Frame::Ping { number } => (PING, number.to_le_bytes().to_vec()),
        Frame::Pong { number, time } => {
            (PONG, [number.to_le_bytes(), time.as_millis().to_le_bytes()].concat())
        }
    };
    [header(kind, body.len()).as_slice(), &body].concat()
}

fn header(kind: u8, body_bytes: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(body_bytes).expect("frames are bounded far below 4 GiB");
    let [a, b, c, d] = length.to_le_bytes();
    [a, b, c, d, kind]
}

/// The frames that arrive on a connection.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// The next frame. It can be cancelled: what has arrived stays.
    pub(super) async fn next<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> Result<Frame, LinkError> {
        loop {
            let missing = match take(&mut self.buffer)? {
                Taken::Frame(frame) => return Ok(frame),
                Taken::Missing(bytes) => bytes,
            };
            // At most as much again as has arrived: a claimed length reserves nothing.
            self.buffer.reserve(missing.clamp(BUFFER_BYTES, self.buffer.len().max(BUFFER_BYTES)));
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }
}

enum Taken {
    Frame(Frame),
    /// At least so many more bytes are needed.
    Missing(usize),
}

fn take(buffer: &mut BytesMut) -> Result<Taken, FrameError> {
    let Some((&[a, b, c, d, kind], rest)) = buffer.split_first_chunk() else {
        return Ok(Taken::Missing(HEADER_BYTES - buffer.len()));
    };
    let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
    let limit = match kind {
        DATA => MAX_FRAME_BYTES,
        HELLO => HELLO_BYTES,
        PING => PING_BYTES,
        PONG => PONG_BYTES,
        unknown => return Err(FrameError::Kind(unknown)),
    };
    if bytes > limit {
        return Err(FrameError::TooLong { bytes, limit });
    }
    if rest.len() < bytes {
        return Ok(Taken::Missing(bytes - rest.len()));
    }
    buffer.advance(HEADER_BYTES);
    let body = buffer.split_to(bytes).freeze();
    let frame = match kind {
        DATA => Some(Frame::Data(body)),
        HELLO => borsh::from_slice(&body).ok().map(Frame::Hello),
        PING => borsh::from_slice(&body).ok().map(|number| Frame::Ping { number }),
        PONG => borsh::from_slice(&body).ok().map(|(number, time)| Frame::Pong { number, time }),
        unknown => return Err(FrameError::Kind(unknown)),
    };
    frame.map(Taken::Frame).ok_or(FrameError::Body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let hello = Hello { version: 1, cluster: Digest::of(b"c"), epoch: Epoch::new(7) };
        let (process, met) = (Process::numbered(1), Some(Process::numbered(2)));
        vec![
            Frame::Hello(Greeting { hello, process, met }),
            Frame::Hello(Greeting { hello, process, met: None }),
            Frame::Data(Bytes::from_static(b"vote")),
            Frame::Ping { number: 3 },
            Frame::Data(Bytes::new()),
            Frame::Pong { number: 3, time: UnixMillis::new(9) },
            Frame::Data(Bytes::from(vec![5; 300_000])),
        ]
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_however_the_bytes_are_cut() {
        let sent: Vec<u8> = frames().iter().flat_map(control).collect();
        for piece in [1, 7, 1000, sent.len()] {
            let (mut writer, mut reader) = tokio::io::duplex(piece);
            let sent = sent.clone();
            let writing =
                tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut writer, &sent).await });
            let mut arriving = FrameReader::default();
            for frame in frames() {
                assert_eq!(arriving.next(&mut reader).await.expect("it is a frame"), frame);
            }
            assert!(matches!(arriving.next(&mut reader).await, Err(LinkError::Closed)));
            writing.await.expect("the writer does not panic").expect("the reader takes all");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_frame_are_refused_by_their_header() {
        let over = u32::try_from(MAX_FRAME_BYTES + 1).expect("it fits").to_le_bytes();
        let too_long = FrameError::TooLong { bytes: MAX_FRAME_BYTES + 1, limit: MAX_FRAME_BYTES };
        for (bytes, error) in [
            ([&over[..], &[DATA]].concat(), too_long),
            (vec![78, 0, 0, 0, HELLO], FrameError::TooLong { bytes: 78, limit: 77 }),
            (vec![0, 0, 0, 0, 9], FrameError::Kind(9)),
            (vec![3, 0, 0, 0, PING, 1, 2, 3], FrameError::Body),
            (vec![0xff, 0xff, 0xff, 0xff, PONG], FrameError::TooLong { bytes: 0xffff_ffff, limit: 16 }),
        ] {
            let refused = FrameReader::default().next(&mut bytes.as_slice()).await;
            assert!(matches!(refused, Err(LinkError::Frame(got)) if got == error), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_claimed_length_reserves_no_memory() {
        let claimed = u32::try_from(MAX_FRAME_BYTES).expect("it fits").to_le_bytes();
        let bytes = [&claimed[..], &[DATA], &[1; 10]].concat();
        let mut arriving = FrameReader::default();
        assert!(matches!(arriving.next(&mut bytes.as_slice()).await, Err(LinkError::Closed)));
        let reserved = arriving.buffer.capacity();
        assert!(reserved <= 4 * BUFFER_BYTES, "{reserved} bytes");
    }
}
