//! What a server counts: connections, and what its bounds ended, by kind. For `/metrics`.
//!
//! It keeps nothing of a client. Invariant: whatever a bound ends is counted once, under one kind.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Which bound ended a connection or a request, or what was wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All connections are taken.
    Full,
    /// The address has all of its connections.
    AddressFull,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// A request's head took too long.
    HeaderTimeout,
    /// No further request came.
    IdleTimeout,
    /// A body stood still.
    BodyStalled,
    /// A body took too long.
    BodyTimeout,
    /// A request was not answered in time.
    RequestTimeout,
    /// The client did not take its answer.
    AnswerNotTaken,
    /// The head is too large or has too many fields.
    HeadTooLarge,
    /// The target is too long.
    TargetTooLong,
    /// The body is too large.
    BodyTooLarge,
    /// It is no HTTP/1 request.
    Malformed,
    /// It was under way when the server stopped.
    Stopped,
}

impl Cut {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Full,
        Self::AddressFull,
        Self::HandshakeTimeout,
        Self::HandshakeFailed,
        Self::HeaderTimeout,
        Self::IdleTimeout,
        Self::BodyStalled,
        Self::BodyTimeout,
        Self::RequestTimeout,
        Self::AnswerNotTaken,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::BodyTooLarge,
        Self::Malformed,
        Self::Stopped,
    ];

    /// Its name as a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::AddressFull => "address_full",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::HeaderTimeout => "header_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::BodyStalled => "body_stalled",
            Self::BodyTimeout => "body_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::AnswerNotTaken => "answer_not_taken",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::Malformed => "malformed",
            Self::Stopped => "stopped",
        }
    }
}

/// A server's counters.
#[derive(Debug, Default)]
pub struct HttpCounters {
    accepted: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    cut: [AtomicU64; Cut::ALL.len()],
}

impl HttpCounters {
    /// Counts what a bound ended.
    pub(super) fn cut(&self, cut: Cut) {
        self.cut[cut as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// How often a bound of this kind ended something.
    #[must_use]
    pub fn of(&self, cut: Cut) -> u64 {
        self.cut[cut as usize].load(Relaxed)
    }

    /// How many connections are held.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

/// The counters for a registry of metrics.
#[derive(Clone, Debug)]
pub struct HttpMetrics(pub Arc<HttpCounters>);

impl Collector for HttpMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counters = &self.0;
        let mut counter = |name: &str, help: &str, value: &AtomicU64| {
            let counter = ConstCounter::new(value.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
        };
        counter("http_connections_accepted", "Connections accepted, refused ones too", &counters.accepted)?;
        counter("http_requests", "Requests with a complete head", &counters.requests)?;
        let open = ConstGauge::new(counters.open_connections());
        let help = "Connections held";
        open.encode(encoder.encode_descriptor("http_connections", help, None, MetricType::Gauge)?)?;
        let help = "Connections and requests that a bound ended, by kind";
        let mut cuts = encoder.encode_descriptor("http_cut", help, None, MetricType::Counter)?;
        for cut in Cut::ALL {
            let labels = [("kind", cut.as_str())];
            ConstCounter::new(counters.of(cut)).encode(cuts.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, HttpCounters};

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        let counters = HttpCounters::default();
        for cut in Cut::ALL {
            counters.cut(cut);
        }
        let mut names: Vec<_> = Cut::ALL.iter().map(|cut| cut.as_str()).collect();
        assert!(Cut::ALL.iter().all(|cut| counters.of(*cut) == 1));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cut::ALL.len());
    }
}
