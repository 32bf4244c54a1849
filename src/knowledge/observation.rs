//! What monitors see: series, one replica's summary of one window, and the signed report that carries it.
//!
//! Summaries hold fixed-point values only, and everything in them is sorted, so that two replicas that saw
//! the same samples build the same bytes in whatever order the samples came.

use borsh::{BorshDeserialize, BorshSerialize};
use std::{collections::BTreeMap, fmt};

use super::buckets::Buckets;
use crate::types::{
    Digest, Domain, Quantity, ReplicaIndex, SecretKey, Signature, SourceId, StatementKind, UnixMillis,
    WindowIndex, statement_bytes,
};

/// An attribute's value. Numbers with a fraction, lists and maps are kept as their compact JSON text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum AttributeValue {
    /// A string.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// Any other value, as compact JSON.
    Other(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Other(text) => f.write_str(text),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Integer(number) => write!(f, "{number}"),
        }
    }
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, AttributeValue>;

/// The identity of a series: what it measures and where, without what changes from process to process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct SeriesKey {
    /// The engine that posts it (`service.name`).
    pub source: SourceId,
    /// The metric's name.
    pub name: String,
    /// The data point's attributes.
    pub attributes: Attributes,
    /// The resource's attributes, without those that name a process or a run, and without `service.name`.
    pub resource: Attributes,
}

/// One series in one window, as one replica saw it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SeriesSummary {
    /// A value at points in time: gauges and sums that may fall.
    Level {
        /// The value with the newest time; the largest of those with equal time.
        last: Quantity,
        /// The smallest value.
        min: Quantity,
        /// The largest value.
        max: Quantity,
        /// The sum of all values, for the mean.
        sum: Quantity,
        /// How many values there were; at least 1.
        samples: u64,
    },
    /// A sum that only rises, by how much it rose.
    Increase {
        /// The rise over all of the series' streams.
        increase: Quantity,
        /// How many data points there were; at least 1.
        samples: u64,
    },
    /// A histogram or a summary, by how many values it gained, their sum, and where they lie.
    Distribution {
        /// How many values came.
        count: u64,
        /// The sum of the values that came.
        sum: Quantity,
        /// How many data points there were; at least 1.
        samples: u64,
        /// Where the values lie; empty when that is not known.
        buckets: Buckets,
    },
}

/// The shared body of a report: byte-identical at all replicas that saw the same samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WindowSummary {
    /// Every series with a sample in the window. Series without one are not listed.
    pub series: BTreeMap<SeriesKey, SeriesSummary>,
}

/// What is one replica's own in a report. It stands outside the body, so that equal bodies stay equal.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReportHeader {
    /// Who reports.
    pub replica: ReplicaIndex,
    /// On which window.
    pub window: WindowIndex,
    /// Whether the replica missed part of the window (a restart, a gap): then the report does not count.
    pub partial: bool,
    /// When it was signed, by the replica's clock.
    pub signed_at: UnixMillis,
    /// SHA-256 of the body's canonical bytes.
    pub body: Digest,
}

/// A report's header with its replica's signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedReport {
    /// The header.
    pub header: ReportHeader,
    /// The replica's signature over the header as a statement of kind `Report`.
    pub signature: Signature,
}

impl ReportHeader {
    /// The bytes that the replica signs.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn statement(&self, domain: &Domain) -> Vec<u8> {
        let body = borsh::to_vec(self).expect("writing to memory does not fail");
        statement_bytes(StatementKind::Report, domain, &body)
    }

    /// The header with its signature.
    #[must_use]
    pub fn sign(self, domain: &Domain, key: &SecretKey) -> SignedReport {
        let signature = key.sign(&self.statement(domain));
        SignedReport { header: self, signature }
    }
}

/// A replica's signed time without a report: it moves agreed time on when windows wait for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Tick {
    /// Who says so.
    pub replica: ReplicaIndex,
    /// Its clock.
    pub signed_at: UnixMillis,
}

/// A tick with its replica's signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedTick {
    /// The tick.
    pub tick: Tick,
    /// The replica's signature over the tick as a statement of kind `Tick`.
    pub signature: Signature,
}

impl Tick {
    /// The bytes that the replica signs.
    ///
    /// # Panics
    /// Never: writing to memory does not fail.
    #[must_use]
    pub fn statement(&self, domain: &Domain) -> Vec<u8> {
        let body = borsh::to_vec(self).expect("writing to memory does not fail");
        statement_bytes(StatementKind::Tick, domain, &body)
    }

    /// The tick with its signature.
    #[must_use]
    pub fn sign(self, domain: &Domain, key: &SecretKey) -> SignedTick {
        let signature = key.sign(&self.statement(domain));
        SignedTick { tick: self, signature }
    }
}
