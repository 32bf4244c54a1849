//! The forms of telemetry: which path takes which, and which decoder reads it.
//!
//! It knows no HTTP and reads no body itself. Invariant: every form becomes points of one kind (a [`Batch`]), so that
//! windows, quotas and tallies are the same for all.

use borsh::{BorshDeserialize, BorshSerialize};

use super::{
    Batch,
    body::DecodeError,
    otlp::{self, Format, METRICS_PATHS},
    plain_json, remote_write,
};

/// What is spoken at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Protocol {
    /// OTLP metrics.
    Otlp,
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// Plain samples in JSON.
    Samples,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Otlp, Self::RemoteWrite, Self::Samples];

    /// Where it is spoken, its own path first.
    #[must_use]
    pub const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Otlp => &METRICS_PATHS,
            Self::RemoteWrite => &["/api/v1/write"],
            Self::Samples => &["/v1/samples"],
        }
    }

    /// The form of a body with this `Content-Type`.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedType`] when the protocol has no such form.
    pub fn form(self, content_type: Option<&str>) -> Result<Form, DecodeError> {
        match self {
            Self::Otlp => Format::of_content_type(content_type).map(Form::Otlp),
            Self::RemoteWrite => remote_write::check_type(content_type).map(|()| Form::RemoteWrite),
            Self::Samples => plain_json::check_type(content_type).map(|()| Form::Samples),
        }
    }
}

/// The form of a body. An answer follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OTLP metrics in one of their forms.
    Otlp(Format),
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// Plain samples in JSON.
    Samples,
}

impl Form {
    /// The protocol that has it.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Otlp(_) => Protocol::Otlp,
            Self::RemoteWrite => Protocol::RemoteWrite,
            Self::Samples => Protocol::Samples,
        }
    }

    /// The media type of its bodies.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Otlp(format) => format.content_type(),
            Self::RemoteWrite => Format::Protobuf.content_type(),
            Self::Samples => Format::Json.content_type(),
        }
    }

    /// The points of a body, which has at most so many bytes after decompression.
    ///
    /// # Errors
    /// [`DecodeError`] when the body is refused whole. Points that are refused alone are counted in the batch.
    pub fn decode(
        self,
        body: &[u8],
        content_encoding: Option<&str>,
        most: usize,
    ) -> Result<Batch, DecodeError> {
        match self {
            Self::Otlp(format) => {
                otlp::decode_within(body, Some(format.content_type()), content_encoding, most)
            }
            Self::RemoteWrite => remote_write::decode(body, content_encoding, most),
            Self::Samples => plain_json::decode(body, content_encoding, most),
        }
    }
}
