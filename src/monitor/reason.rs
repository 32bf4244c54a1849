//! Why a data point is refused. A refusal is counted and told to the client; it is never an error of the
//! whole request, and it never stops the other points.

use std::fmt;

/// Why a data point is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It has no time.
    NoTime,
    /// Its stream or interval starts after its own time.
    StartAfterTime,
    /// It has no value, or one of a wrong type.
    NoValue,
    /// Its value is infinite or not a number.
    NotFinite,
    /// Its value is larger than any quantity.
    OutOfRange,
    /// A sum that only rises, or a count, is below zero.
    Negative,
    /// Its metric says neither delta nor cumulative.
    NoTemporality,
    /// It is the change of a sum that may fall: the level itself is not known.
    ChangeOfLevel,
    /// Its histogram holds values but not their sum.
    NoSum,
    /// Its histogram has buckets that no histogram has: their number, their bounds or their places.
    BadBuckets,
    /// Its metric is of a kind that is not known.
    UnknownKind,
    /// Its metric has no name, or a too long one.
    BadName,
    /// `service.name` is no valid name of a source.
    BadSource,
    /// It or its resource has too many attributes.
    TooManyAttributes,
    /// Its names and attributes are too large, or nested too deeply.
    IdentityTooLarge,
    /// Its request has more points, or larger ones, than one request may have.
    TooManyPoints,
    /// Its window is closed already, or began before the monitor did.
    Late,
    /// Its time lies too far ahead of the monitor's clock.
    Future,
    /// So many windows wait to be closed that its own cannot be opened yet.
    NotOpenYet,
    /// Its source is one too many.
    TooManySources,
    /// Its series is one too many for its source.
    TooManySeries,
    /// The open windows hold as many samples as they may.
    TooManySamples,
}

impl Reason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 22] = [
        Self::NoTime,
        Self::StartAfterTime,
        Self::NoValue,
        Self::NotFinite,
        Self::OutOfRange,
        Self::Negative,
        Self::NoTemporality,
        Self::ChangeOfLevel,
        Self::NoSum,
        Self::BadBuckets,
        Self::UnknownKind,
        Self::BadName,
        Self::BadSource,
        Self::TooManyAttributes,
        Self::IdentityTooLarge,
        Self::TooManyPoints,
        Self::Late,
        Self::Future,
        Self::NotOpenYet,
        Self::TooManySources,
        Self::TooManySeries,
        Self::TooManySamples,
    ];

    /// The reason in words, as it stands in answers and as a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTime => "no_time",
            Self::StartAfterTime => "start_after_time",
            Self::NoValue => "no_value",
            Self::NotFinite => "not_finite",
            Self::OutOfRange => "out_of_range",
            Self::Negative => "negative",
            Self::NoTemporality => "no_temporality",
            Self::ChangeOfLevel => "change_of_level",
            Self::NoSum => "no_sum",
            Self::BadBuckets => "bad_buckets",
            Self::UnknownKind => "unknown_kind",
            Self::BadName => "bad_name",
            Self::BadSource => "bad_source",
            Self::TooManyAttributes => "too_many_attributes",
            Self::IdentityTooLarge => "identity_too_large",
            Self::TooManyPoints => "too_many_points",
            Self::Late => "late",
            Self::Future => "future",
            Self::NotOpenYet => "not_open_yet",
            Self::TooManySources => "too_many_sources",
            Self::TooManySeries => "too_many_series",
            Self::TooManySamples => "too_many_samples",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
