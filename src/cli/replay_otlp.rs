//! `quorate replay-otlp`: sends a recording to a telemetry door again, as if it happened at this moment,
//! faster or slower than it did.
//!
//! Start and sample times are moved to `t0 + (t - first) / speed`, where t0 is when the replay begins and
//! `first` is the recording's clock when its first request arrived; requests are sent at the same pace. It
//! changes nothing else of a body. Invariant: no sample is sent before its new time.

use serde::Serialize;
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{ClientFlags, ExitCode, Failure, output::Output};
use crate::{
    monitor::{
        Batch,
        otlp::{decode, map_times},
        recording::{self, RecordedRequest},
    },
    service::{
        clock::{Stopwatch, wall_clock},
        http_client::{Bounds, HttpClient, HttpError},
    },
    types::Millis,
};

/// How long an answer may take, and how large it may be: those of a door are a few bytes.
const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(10), body_bytes: 64 * 1024 };

/// How many requests wait for their answers at once: as many as one engine's processes do.
const IN_FLIGHT: usize = 16;

/// After so many requests in a row without an answer nobody is there.
const GIVE_UP_AFTER: u64 = 20;

const EXAMPLES: &str = "\
Examples:
  quorate replay-otlp examples/airflow-incident.otlp.gz --to http://127.0.0.1:4318 --speed 20
      the recorded incident, 17 minutes of it in one, through the relay of `quorate dev`
  quorate replay-otlp FILE --to http://127.0.0.1:8101/v1/metrics --speed 1
      at the pace at which it was recorded

Start and sample times are moved, so that the recording happens now: a time t becomes t0 + (t - first) / SPEED.
Windows are cut by the moved times: at speed 20, half a second of windows is ten recorded seconds.
Exit codes: 0 all was taken, 1 nothing was, 2 usage, 3 some requests were not taken.";

/// Send a recording to a telemetry door as if it happened now.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A packed recording, or a folder with index.jsonl.
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// The door's address; /v1/metrics is added when it has no path.
    #[arg(long, value_name = "URL", value_parser = door_address)]
    to: String,
    /// How many times faster than it was recorded.
    #[arg(long, value_name = "X", default_value = "1", value_parser = Speed::parse)]
    speed: Speed,
    #[command(flatten)]
    reach: ClientFlags,
}

/// A factor of time, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speed {
    milli: u32,
}

impl Speed {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked before"
    )]
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(factor) if (0.01..=10_000.0).contains(&factor) => {
                Ok(Self { milli: (factor * 1e3).round() as u32 })
            }
            Ok(_) | Err(_) => Err("a speed is a number from 0.01 to 10000".to_owned()),
        }
    }

    fn shorten_nanos(self, span: i128) -> i128 {
        span * 1_000 / i128::from(self.milli)
    }

    fn shorten(self, span: Millis) -> Duration {
        Duration::from_micros(span.as_millis().saturating_mul(1_000_000) / u64::from(self.milli))
    }
}

pub(super) fn door_address(text: &str) -> Result<String, String> {
    let uri: axum::http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err("an address of a door looks like http://127.0.0.1:4318".to_owned());
    }
    let base = text.trim_end_matches('/');
    Ok(if uri.path() == "/" { format!("{base}/v1/metrics") } else { text.to_owned() })
}

/// How the recording's times become new ones.
#[derive(Clone, Copy, Debug)]
struct Shift {
    /// The recording's clock when its first request arrived, in nanoseconds.
    first: u64,
    /// When the replay began, in nanoseconds.
    began: u64,
    speed: Speed,
}

impl Shift {
    /// A time before 1970 becomes the first nanosecond after it: zero would mean "unknown".
    fn map(self, time: u64) -> u64 {
        let span = self.speed.shorten_nanos(i128::from(time) - i128::from(self.first));
        u64::try_from((i128::from(self.began) + span).max(1)).unwrap_or(u64::MAX)
    }
}

/// The recording's clock when its first request arrived: no sample is newer than its request's arrival.
fn first_arrival(requests: &[RecordedRequest]) -> Option<u64> {
    let arrival = |request: &RecordedRequest| {
        let batch = decode_recorded(request).ok()?;
        let newest = batch.points().map(|point| point.sample.time.as_nanos()).max()?;
        newest.checked_sub(request.received_at_ms.saturating_mul(1_000_000))
    };
    requests.iter().filter_map(arrival).max()
}

fn decode_recorded(request: &RecordedRequest) -> Result<Batch, crate::monitor::body::DecodeError> {
    decode(&request.body, request.content_type.as_deref(), request.content_encoding.as_deref())
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when the recording cannot be read, or nobody answers.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let Arguments { recording, to, speed, reach } = arguments;
    let client = reach.client(std::slice::from_ref(&to))?;
    let mut requests = recording::read(&recording).map_err(Failure::failed)?;
    requests.retain(RecordedRequest::is_metrics);
    requests.sort_by_key(|request| request.received_at_ms);
    let Some(first) = first_arrival(&requests) else {
        let error = anyhow::anyhow!("{} holds no metrics request that can be read", recording.display());
        return Err(Failure::failed(error));
    };
    let began = wall_clock().as_millis().saturating_mul(1_000_000);
    let replay = Replay {
        client,
        to,
        shift: Shift { first, began, speed },
        clock: Stopwatch::start(),
        summary: Summary::default(),
        unanswered: 0,
    };
    let summary = replay.send_all(requests, output).await?;
    output.event(&summary)?;
    Ok(match (summary.taken(), summary.requests) {
        (taken, requests) if taken == requests => ExitCode::Done,
        (0, _) => ExitCode::Failed,
        (_, _) => ExitCode::Degraded,
    })
}

struct Replay {
    client: HttpClient,
    to: String,
    shift: Shift,
    clock: Stopwatch,
    summary: Summary,
    unanswered: u64,
}

/// What became of one request.
enum Sent {
    Answered(u16),
    Unanswered(HttpError),
    Unreadable,
}

impl Replay {
    async fn send_all(mut self, requests: Vec<RecordedRequest>, output: Output) -> Result<Summary, Failure> {
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut sending = JoinSet::new();
        let (all, last) = (requests.len(), requests.last().map_or(0, |request| request.received_at_ms));
        let mut next_mark = 10;
        for (number, request) in requests.into_iter().enumerate() {
            let due = self.shift.speed.shorten(Millis::new(request.received_at_ms));
            let elapsed = Duration::from_millis(self.clock.elapsed().as_millis());
            tokio::time::sleep(due.saturating_sub(elapsed)).await;
            let received_at_ms = request.received_at_ms;
            let place = Arc::clone(&places).acquire_owned().await;
            let (client, to, shift) = (self.client.clone(), self.to.clone(), self.shift);
            sending.spawn(async move {
                let sent = send(&client, &to, &request, shift).await;
                drop(place);
                sent
            });
            while let Some(sent) = sending.try_join_next() {
                self.note(sent.map_err(Failure::failed)?)?;
            }
            while last > 0 && received_at_ms * 100 / last >= next_mark {
                let progress = Progress { recorded_s: received_at_ms / 1_000, sent: number + 1, of: all };
                output.event(&progress)?;
                next_mark += 10;
            }
        }
        while let Some(sent) = sending.join_next().await {
            self.note(sent.map_err(Failure::failed)?)?;
        }
        self.summary.seconds = self.clock.elapsed().as_millis() / 1_000;
        Ok(self.summary)
    }

    fn note(&mut self, sent: Sent) -> Result<(), Failure> {
        self.summary.requests += 1;
        match sent {
            Sent::Answered(status) => {
                self.unanswered = 0;
                *self.summary.answers.entry(status).or_default() += 1;
            }
            Sent::Unanswered(error) => {
                self.summary.unanswered += 1;
                self.unanswered += 1;
                // The first request tells whether anybody is there at all.
                if self.summary.requests == 1 || self.unanswered >= GIVE_UP_AFTER {
                    let next = "is `quorate dev`, a relay or a replica running there?";
                    return Err(Failure::failed(error).next(next));
                }
            }
            Sent::Unreadable => self.summary.unreadable += 1,
        }
        Ok(())
    }
}

async fn send(client: &HttpClient, to: &str, request: &RecordedRequest, shift: Shift) -> Sent {
    let content_type = request.content_type.as_deref();
    let encoding = request.content_encoding.as_deref();
    let Ok(body) = map_times(&request.body, content_type, encoding, &|time| shift.map(time)) else {
        return Sent::Unreadable;
    };
    match client.post(to, content_type.unwrap_or_default(), body, BOUNDS).await {
        Ok(answer) => Sent::Answered(answer.status.as_u16()),
        Err(error) => Sent::Unanswered(error),
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "replay_progress")]
struct Progress {
    /// Where in the recording.
    recorded_s: u64,
    sent: usize,
    of: usize,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay: {} s of the recording, {} of {} requests", self.recorded_s, self.sent, self.of)
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(tag = "event", rename = "replay_done")]
struct Summary {
    requests: u64,
    /// How many answers had each status.
    answers: BTreeMap<u16, u64>,
    /// Requests that nobody answered.
    unanswered: u64,
    /// Requests that are no metrics, and so were not sent.
    unreadable: u64,
    seconds: u64,
}

impl Summary {
    fn taken(&self) -> u64 {
        self.answers.range(200..300).map(|(_, requests)| requests).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replay: done in {} s: {} of {} requests taken",
            self.seconds,
            self.taken(),
            self.requests
        )?;
        for (status, requests) in self.answers.iter().filter(|(status, _)| !(200..300).contains(*status)) {
            write!(f, ", {requests} answered with {status}")?;
        }
        for (label, requests) in [("unanswered", self.unanswered), ("unreadable", self.unreadable)] {
            if requests > 0 {
                write!(f, ", {requests} {label}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Shift, Speed, door_address, first_arrival};
    use crate::monitor::{otlp, recording};
    use std::path::Path;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn times_are_moved_and_squeezed() {
        let shift = Shift { first: 500 * SECOND, began: 9_000 * SECOND, speed: Speed { milli: 20_000 } };
        let table = [(500, 9_000_000), (520, 9_001_000), (480, 8_999_000), (501, 9_000_050)];
        for (recorded_s, replayed_ms) in table {
            assert_eq!(shift.map(recorded_s * SECOND), replayed_ms * SECOND / 1_000, "{recorded_s}");
        }
        assert_eq!(Shift { began: 1, ..shift }.map(0), 1, "no time becomes unknown");
    }

    #[test]
    fn no_sample_of_the_recording_is_sent_before_its_new_time() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/airflow-incident.otlp.gz");
        let requests = recording::read(&file).expect("the recording is there");
        let first = first_arrival(&requests).expect("it holds samples");
        let shift = Shift { first, began: 9_000 * SECOND, speed: Speed { milli: 7_300 } };
        for request in &requests {
            let body = otlp::map_times(&request.body, request.content_type.as_deref(), None, &|time| {
                shift.map(time)
            });
            let body = body.expect("the engine's bodies are well-formed");
            let batch =
                otlp::decode(&body, request.content_type.as_deref(), None).expect("so are the new ones");
            let sent_at = 9_000 * SECOND + request.received_at_ms * 1_000_000 * 10 / 73;
            let newest = batch.points().map(|point| point.sample.time.as_nanos()).max();
            assert!(newest.is_none_or(|newest| newest <= sent_at + 1), "request {}", request.n);
        }
    }

    #[test]
    fn addresses_and_speeds_are_checked() {
        let door = |text| door_address(text).ok();
        assert_eq!(door("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/metrics"));
        assert_eq!(door("http://127.0.0.1:4318/").as_deref(), Some("http://127.0.0.1:4318/v1/metrics"));
        assert_eq!(door("http://[::1]:1/x").as_deref(), Some("http://[::1]:1/x"));
        for text in ["127.0.0.1:4318", "ftp://localhost", "", "/v1/metrics"] {
            assert_eq!(door(text), None, "{text:?}");
        }
        for (text, milli) in
            [("20", Some(20_000)), ("0.5", Some(500)), ("0", None), ("-1", None), ("x", None), ("NaN", None)]
        {
            assert_eq!(Speed::parse(text).ok().map(|speed| speed.milli), milli, "{text:?}");
        }
    }
}
