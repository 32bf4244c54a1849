//! What the door answers, in the form of the request: taken, refused, or too much already.
//!
//! It decides nothing. Invariant: an answer never repeats more of a body than a short piece of it.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use prost::Message as _;

use crate::monitor::{Ingested, body::DecodeError, form::Form, otlp::Format};

/// Seconds after which an overloaded door may be asked again by a client of OTLP; above every such client's own
/// timeout, so that none waits for it.
pub const RETRY_AFTER_SECONDS: &str = "30";

/// The same for others, which hold no engine's slot while they wait: within a window's grace, so that what they
/// send again still counts.
pub const RETRY_SOON_SECONDS: &str = "1";

pub(super) const OVERLOADED: &str = "too much telemetry is waiting already";

const TEXT: &str = "text/plain; charset=utf-8";

/// What is known of a request's points when it is answered.
#[derive(Clone, Debug)]
pub enum Told {
    /// They are counted.
    Counted(Ingested),
    /// They will be; what is refused then is not known.
    Queued(Ingested),
}

impl Told {
    const fn ingested(&self) -> &Ingested {
        match self {
            Self::Counted(ingested) | Self::Queued(ingested) => ingested,
        }
    }
}

/// The answer to a request that was taken: empty, or how many of its points do not count and why.
#[must_use]
pub fn success(form: Form, told: &Told) -> Response {
    match (form, told) {
        (Form::Otlp(format), _) => otlp_success(format, told.ingested()),
        (Form::RemoteWrite, _) => StatusCode::NO_CONTENT.into_response(),
        (Form::Samples, Told::Counted(ingested)) => samples_success(StatusCode::OK, ingested),
        (Form::Samples, Told::Queued(ingested)) => samples_success(StatusCode::ACCEPTED, ingested),
    }
}

fn samples_success(status: StatusCode, ingested: &Ingested) -> Response {
    let rejected: serde_json::Map<_, _> =
        ingested.rejected.iter().map(|(reason, points)| (reason.to_string(), (*points).into())).collect();
    let body = serde_json::json!({"accepted": ingested.accepted, "rejected": rejected}).to_string();
    answer(status, Form::Samples.content_type(), body.into_bytes())
}

fn otlp_success(format: Format, ingested: &Ingested) -> Response {
    let rejected: u64 = ingested.rejected.values().sum();
    let reasons: Vec<String> =
        ingested.rejected.iter().map(|(reason, points)| format!("{points} {reason}")).collect();
    let partial_success = (rejected > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: format!("not counted: {}", reasons.join(", ")),
    });
    let body = match format {
        Format::Protobuf => ExportMetricsServiceResponse { partial_success }.encode_to_vec(),
        Format::Json => match partial_success {
            None => b"{}".to_vec(),
            Some(partial) => serde_json::json!({"partialSuccess": {
                "rejectedDataPoints": partial.rejected_data_points.to_string(),
                "errorMessage": partial.error_message,
            }})
            .to_string()
            .into_bytes(),
        },
    };
    answer(StatusCode::OK, format.content_type(), body)
}

/// The answer when nothing more can be taken.
#[must_use]
pub fn overloaded(form: Form) -> Response {
    unavailable(form, OVERLOADED)
}

/// The answer when nothing can be taken for a while, with a text.
#[must_use]
pub fn unavailable(form: Form, why: &str) -> Response {
    let mut response = refusal(Some(form), StatusCode::SERVICE_UNAVAILABLE, why);
    let seconds = match form {
        Form::Otlp(_) => RETRY_AFTER_SECONDS,
        Form::RemoteWrite | Form::Samples => RETRY_SOON_SECONDS,
    };
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(seconds));
    response
}

/// `google.rpc.Status`, which OTLP wants as the body of errors.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The answer to a request that is not taken, with a text; plain when the form is not known.
#[must_use]
pub fn refusal(form: Option<Form>, status: StatusCode, why: &str) -> Response {
    match form {
        Some(Form::Otlp(format)) => otlp_refusal(format, status, why),
        Some(Form::Samples) => {
            let body = serde_json::json!({"error": why}).to_string();
            answer(status, Form::Samples.content_type(), body.into_bytes())
        }
        // Prometheus logs the first line of the text.
        Some(Form::RemoteWrite) | None => answer(status, TEXT, format!("{why}\n").into_bytes()),
    }
}

fn otlp_refusal(format: Format, status: StatusCode, why: &str) -> Response {
    /// `google.rpc.Code`.
    const INVALID_ARGUMENT: i32 = 3;
    const PERMISSION_DENIED: i32 = 7;
    const UNAVAILABLE: i32 = 14;
    const UNAUTHENTICATED: i32 = 16;
    let code = match status {
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        status if status.is_server_error() => UNAVAILABLE,
        _ => INVALID_ARGUMENT,
    };
    let body = match format {
        Format::Protobuf => RpcStatus { code, message: why.to_owned() }.encode_to_vec(),
        Format::Json => serde_json::json!({"code": code, "message": why}).to_string().into_bytes(),
    };
    answer(status, format.content_type(), body)
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// The status to answer with when a body is refused whole.
#[must_use]
pub const fn status_of(error: &DecodeError) -> StatusCode {
    match error {
        DecodeError::UnsupportedType { .. } | DecodeError::UnsupportedEncoding { .. } => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        DecodeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        DecodeError::Compression { .. } | DecodeError::Malformed { .. } => StatusCode::BAD_REQUEST,
    }
}
