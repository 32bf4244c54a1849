//! A replica's own commands that found no room among those that wait: the newest are kept and tried again.
//!
//! It is no second queue: with room for its own share a replica never uses it. Invariant: it holds at most
//! [`MAX_TRIED_AGAIN`] commands, and gives them back oldest first.

use std::collections::VecDeque;

use super::block::Command;

/// How many are tried again, the newest: a replica hands in a few a window, and those of old windows help nobody.
const MAX_TRIED_AGAIN: usize = 64;

/// The commands, oldest first.
#[derive(Debug, Default)]
pub(super) struct Overflow(VecDeque<Command>);

impl Overflow {
    /// Keeps one more; the oldest goes when there are too many.
    pub(super) fn keep(&mut self, command: Command) {
        if self.0.len() == MAX_TRIED_AGAIN {
            self.0.pop_front();
        }
        self.0.push_back(command);
    }

    /// Tries them, oldest first, until one finds no room again.
    pub(super) fn try_again(&mut self, mut found_room: impl FnMut(Command) -> bool) {
        while let Some(command) = self.0.front().cloned()
            && found_room(command)
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, MAX_TRIED_AGAIN, Overflow};

    #[test]
    fn the_newest_commands_are_tried_again_oldest_first_until_one_finds_no_room() {
        let command =
            |number: usize| Command::new(number.to_le_bytes().to_vec(), Vec::new()).expect("it is small");
        let mut overflow = Overflow::default();
        (0..MAX_TRIED_AGAIN + 2).for_each(|number| overflow.keep(command(number)));
        let tried = |overflow: &mut Overflow, room: usize| {
            let mut tried = Vec::new();
            overflow.try_again(|command| {
                tried.push(command);
                tried.len() <= room
            });
            tried
        };
        assert_eq!(tried(&mut overflow, 0), [command(2)], "the two oldest are gone");
        assert_eq!(tried(&mut overflow, 1), [command(2), command(3)]);
        let rest: Vec<_> = (3..MAX_TRIED_AGAIN + 2).map(command).collect();
        assert_eq!(tried(&mut overflow, usize::MAX), rest);
        assert_eq!(tried(&mut overflow, usize::MAX), []);
    }
}
