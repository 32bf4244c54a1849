//! A small application behind each replica: it folds committed commands into a digest.
//!
//! It knows nothing of blocks' certificates and decides nothing. Invariant: equal sequences of commands give
//! equal digests, whatever the block boundaries.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate::{
    consensus::Block,
    types::{Digest, Hasher},
};

/// The folded state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Application {
    digest: Digest,
    commands: u64,
}

impl Default for Application {
    fn default() -> Self {
        Self { digest: Digest::ZERO, commands: 0 }
    }
}

impl Application {
    /// Folds a block's commands in.
    pub fn apply(&mut self, block: &Block) {
        for command in block.payload().commands() {
            let mut hasher = Hasher::default();
            hasher.update(self.digest.as_bytes());
            hasher.update(command.head());
            hasher.update(command.body());
            self.digest = hasher.finish();
            self.commands += 1;
        }
    }

    /// The digest of all commands so far, in their order.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many commands there were.
    #[must_use]
    pub const fn commands(&self) -> u64 {
        self.commands
    }
}
