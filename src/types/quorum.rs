//! Quorum arithmetic, in one checked type. Nothing else in the project computes a fault bound or a quorum.

use borsh::{BorshDeserialize, BorshSerialize};
use std::io;

/// The size of a committee and all that follows from it.
///
/// With n replicas, `f = floor((n-1)/3)` of them may be Byzantine and a quorum is `floor((n+f)/2)+1`, so
/// that two quorums always share an honest replica and an honest quorum exists. That is `2f+1` only when
/// `n = 3f+1`: for n = 5 and n = 6 a quorum is 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct CommitteeSize(u16);

impl BorshDeserialize for CommitteeSize {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::new(usize::from(u16::deserialize_reader(reader)?))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// A number of replicas that no committee can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a committee has 1 to {max} replicas, not {got}", max = CommitteeSize::MAX)]
pub struct CommitteeSizeError {
    got: usize,
}

impl CommitteeSize {
    /// The largest committee: beyond it, all-to-all votes cost more than the agreement is worth.
    pub const MAX: u16 = 100;

    /// Checks the number of replicas.
    ///
    /// # Errors
    /// [`CommitteeSizeError`] for none and for more than [`Self::MAX`].
    pub fn new(replicas: usize) -> Result<Self, CommitteeSizeError> {
        match u16::try_from(replicas) {
            Ok(n) if (1..=Self::MAX).contains(&n) => Ok(Self(n)),
            Ok(_) | Err(_) => Err(CommitteeSizeError { got: replicas }),
        }
    }

    /// n: how many replicas there are.
    #[must_use]
    pub const fn replicas(self) -> usize {
        self.0 as usize
    }

    /// f: how many of them may be Byzantine without harm.
    #[must_use]
    pub const fn faults(self) -> usize {
        (self.replicas() - 1) / 3
    }

    /// How many distinct replicas decide.
    #[must_use]
    pub const fn quorum(self) -> usize {
        (self.replicas() + self.faults()) / 2 + 1
    }

    /// f + 1: how many distinct replicas include an honest one.
    #[must_use]
    pub const fn one_honest(self) -> usize {
        self.faults() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::CommitteeSize;

    #[test]
    fn two_quorums_share_an_honest_replica_and_the_honest_can_decide_alone() {
        for n in 1..=usize::from(CommitteeSize::MAX) {
            let size = CommitteeSize::new(n).expect("n is in range");
            let (f, q) = (size.faults(), size.quorum());
            assert!(3 * f < n, "n={n}");
            assert!(2 * q - n > f, "two quorums of {q} in {n} share more than {f}");
            assert!(q <= n - f, "the honest replicas of {n} are a quorum");
        }
    }

    #[test]
    fn a_quorum_is_not_always_twice_the_faults_plus_one() {
        let quorums = [1, 2, 2, 3, 4, 4, 5, 6, 6, 7].into_iter().enumerate();
        for (index, quorum) in quorums {
            let size = CommitteeSize::new(index + 1).expect("n is in range");
            assert_eq!(size.quorum(), quorum, "n={}", index + 1);
        }
    }

    #[test]
    fn a_committee_has_at_least_one_replica_and_a_bound() {
        assert!(CommitteeSize::new(0).is_err());
        assert!(CommitteeSize::new(100).is_ok());
        assert!(CommitteeSize::new(101).is_err());
    }
}
