//! Commands that an adversary makes up.
//!
//! It decides nothing about where they go. Invariant: an adversary invents few commands and then repeats them,
//! so that the cluster can come to rest.

use quorate::consensus::Command;

use crate::rng::Stream;

/// How many commands one adversary invents.
const MOST_INVENTED: usize = 10;

/// Makes commands up.
#[derive(Debug, Default)]
pub(super) struct Inventor {
    invented: Vec<Command>,
}

impl Inventor {
    pub(super) fn command(&mut self, stream: &mut Stream) -> Command {
        if self.invented.len() == MOST_INVENTED {
            return self.invented[stream.index(MOST_INVENTED)].clone();
        }
        let head = [b"invented ".as_slice(), &stream.next().to_le_bytes()].concat();
        let command = Command::new(head, Vec::new()).expect("it is small");
        self.invented.push(command.clone());
        command
    }
}
