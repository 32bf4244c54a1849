//! Randomness from the seed: one stream per cause, so that a change in one kind of fault moves no other.
//!
//! It is no cryptography and reads no entropy. Invariant: equal seed and cause give the equal stream on every
//! machine. The generator is xoshiro256** by Blackman and Vigna, seeded by splitmix64.

/// What a stream decides. Each has a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Committee, length and intensity of the run.
    Scenario = 1,
    /// Which message is lost, late, doubled or held back.
    Network = 2,
    /// What a crash leaves of unsynced bytes.
    Disk = 3,
    /// Which replica crashes when, and how long it stays away.
    Crash = 4,
    /// How replicas' clocks run.
    Clock = 5,
    /// Who submits what when.
    Workload = 6,
    /// What adversaries do.
    Adversary = 7,
    /// Which disks fail or are damaged, and when.
    Damage = 8,
    /// Which links and replicas are slow, and which clocks leap.
    Slowness = 9,
    /// What monitors see, and miss.
    Telemetry = 10,
    /// Which links are cut, and when.
    Links = 11,
    /// How bad the links are.
    Weather = 12,
    /// Who is Byzantine, how, and with which side of a twin each replica talks.
    Casting = 13,
    /// What operators ask for, and what agents answer.
    Requests = 14,
    /// Who joins late, and how often checkpoints are made.
    Join = 15,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream([u64; 4]);

impl Stream {
    /// The stream of one cause, and of one place where each replica has its own.
    #[must_use]
    pub const fn new(seed: u64, cause: Cause, place: u64) -> Self {
        let mut state = mixed(mixed(mixed(seed) ^ cause as u64) ^ place);
        let mut words = [0; 4];
        let mut index = 0;
        while index < words.len() {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            words[index] = mixed(state);
            index += 1;
        }
        Self(words)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `end`, which is not zero. The bias of the remainder is below 2^-40 for what is asked.
    pub const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from `first` to `last`, both included.
    pub const fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// Yes, so many times in a thousand.
    pub const fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// An index into a list of this length, which is not zero.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a length")
    }
}

/// The finalizer of splitmix64: every input bit moves every output bit.
pub(crate) const fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
