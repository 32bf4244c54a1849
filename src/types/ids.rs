//! Identifiers and counters as newtypes. None converts from a bare integer by accident, and counters say
//! which arithmetic may end: `next` panics only past 2^64 steps, which no run reaches.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            BorshSerialize, BorshDeserialize, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The counter's start.
            pub const ZERO: Self = Self(0);

            /// Wraps a number that is known to be of this kind.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0
            }

            /// The following value; saturates at the type's end, where equality stops all progress safely.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The value before, or `None` at zero.
            #[must_use]
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// A period with one committee, one protocol and one set of parameters. The first is 1.
    Epoch
);
counter!(
    /// A consensus view: one leader's turn. Genesis is view 0; the first proposal is made in view 1.
    View
);
counter!(
    /// A block's distance from genesis, which is height 0.
    Height
);
counter!(
    /// The number of a control cycle: one replicated counter, +1 for each finalised window, never reset.
    /// It is a plan's sequence number; gaps are normal.
    Cycle
);
counter!(
    /// The number of a head within its shard: +1 for each head the fold derives.
    HeadNumber
);

/// A replica's place in its epoch's committee, counted from 0 in the order of the root document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ReplicaIndex(u16);

impl ReplicaIndex {
    /// Wraps a place in the committee. Whether that place exists is the committee's to say.
    #[must_use]
    pub const fn new(place: u16) -> Self {
        Self(place)
    }

    /// The place as a number.
    #[must_use]
    pub const fn place(self) -> u16 {
        self.0
    }

    /// The place as an index into the committee's list.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ReplicaIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A group of at most 256 targets that share one head.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct Shard(u16);

impl Shard {
    /// Wraps a shard's number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The shard's number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that may not stand here, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not valid: 1 to 128 characters of a-z A-Z 0-9 . _ - / : are allowed")]
pub struct InvalidName {
    what: &'static str,
    name: String,
}

const MAX_NAME_BYTES: usize = 128;

fn checked_name(what: &'static str, name: String) -> Result<String, InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(name)
    } else {
        Err(InvalidName { what, name })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the name: 1 to 128 characters of `a-z A-Z 0-9 . _ - / :`.
            ///
            /// # Errors
            /// [`InvalidName`] when it is empty, too long, or has another character.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                checked_name($what, name.into()).map(Self)
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl BorshDeserialize for $name {
            fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
                Self::new(String::deserialize_reader(reader)?)
                    .map_err(|invalid| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, invalid))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Something that a plan may change: a pool, a DAG, a worker group.
    TargetId,
    "target"
);
name!(
    /// A workflow engine that posts telemetry.
    SourceId,
    "source"
);
