//! Commands that wait to be ordered, by submitter. They stay until they are committed, so those of a block
//! that lost its place are there again by themselves (rule I2).
//!
//! Invariant: each share of a submitter has room of its own; what fills one keeps nothing of another out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    block::{Command, Payload},
    digest_map::DigestMap,
    limits::{
        MAX_BLOCK_BYTES, MAX_BLOCK_COMMANDS, MAX_GOSSIP_BYTES, MAX_GOSSIP_COMMANDS, MAX_ORDINARY_BYTES,
        MAX_ORDINARY_COMMANDS, MAX_PENDING_BYTES, MAX_PENDING_COMMANDS, MAX_URGENT_BYTES,
        MAX_URGENT_COMMANDS, REMEMBERED_COMMANDS,
    },
};
use crate::types::{Digest, ReplicaIndex};

/// Some thousand commands wait under full load.
const WAITING_SHARDS: usize = 1 << 8;

/// All remembered commands, 16 in each.
const COMMITTED_SHARDS: usize = REMEMBERED_COMMANDS / 16;

/// Whose command it is at the replica that submits it. The application says so; peers take all that a submitter
/// passes on as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// The replica's own.
    Own,
    /// Others', which must not wait behind a flood of ordinary ones.
    Urgent,
    /// All others'.
    Ordinary,
}

impl Share {
    /// The most commands of one submitter that wait, and their bytes.
    const fn most(self) -> Waiting {
        match self {
            Self::Own => Waiting { commands: MAX_PENDING_COMMANDS, bytes: MAX_PENDING_BYTES },
            Self::Urgent => Waiting { commands: MAX_URGENT_COMMANDS, bytes: MAX_URGENT_BYTES },
            Self::Ordinary => Waiting { commands: MAX_ORDINARY_COMMANDS, bytes: MAX_ORDINARY_BYTES },
        }
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It waits now.
    Waits,
    /// It waits or was committed already.
    Known,
    /// Too many of its share wait.
    Full,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    commands: usize,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    commands: VecDeque<Digest>,
    shares: BTreeMap<Share, Waiting>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    commands: DigestMap<(ReplicaIndex, Share, Command), WAITING_SHARDS>,
    queues: BTreeMap<ReplicaIndex, Queue>,
    /// Whose turn is first in the next block, so that no submitter is served last for ever.
    turn: usize,
    committed: DigestMap<(), COMMITTED_SHARDS>,
    committed_order: VecDeque<Digest>,
    /// Which peers say of a waiting command that it is committed.
    said_committed: BTreeMap<Digest, BTreeSet<ReplicaIndex>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// How many wait of the submitter with the most.
    pub(super) fn most_of_one(&self) -> usize {
        self.queues.values().map(|queue| queue.commands.len()).max().unwrap_or(0)
    }

    pub(super) fn insert(&mut self, submitter: ReplicaIndex, share: Share, command: Command) -> Admission {
        let digest = command.digest();
        if self.commands.contains(&digest) || self.committed.contains(&digest) {
            return Admission::Known;
        }
        let queue = self.queues.entry(submitter).or_default();
        let (waiting, most) = (queue.shares.entry(share).or_default(), share.most());
        let bytes = waiting.bytes + command.size_bytes();
        if waiting.commands >= most.commands || bytes > most.bytes {
            return Admission::Full;
        }
        *waiting = Waiting { commands: waiting.commands + 1, bytes };
        queue.commands.push_back(digest);
        self.commands.insert(digest, (submitter, share, command));
        Admission::Waits
    }

    /// Whether a command is remembered as committed.
    pub(super) fn is_committed(&self, digest: &Digest) -> bool {
        self.committed.contains(digest)
    }

    /// A peer says that a command is committed. One that waits does so no longer once `enough` peers say it.
    pub(super) fn said_committed(&mut self, digest: Digest, by: ReplicaIndex, enough: usize) {
        if !self.commands.contains(&digest) {
            return;
        }
        let said = self.said_committed.entry(digest).or_default();
        said.insert(by);
        if said.len() >= enough {
            self.commit(digest);
        }
    }

    /// Forgets a committed command and remembers that it was committed; says whether it was the first time.
    pub(super) fn commit(&mut self, digest: Digest) {
        self.said_committed.remove(&digest);
        if let Some((submitter, share, command)) = self.commands.remove(&digest)
            && let Some(queue) = self.queues.get_mut(&submitter)
        {
            let waiting = queue.shares.entry(share).or_default();
            waiting.commands -= 1;
            waiting.bytes -= command.size_bytes();
            // The oldest are committed first but for orphaned blocks, so this looks at the front.
            if let Some(place) = queue.commands.iter().position(|waiting| *waiting == digest) {
                queue.commands.remove(place);
            }
        }
        if self.committed.insert(digest, ()) {
            self.committed_order.push_back(digest);
        }
        if self.committed_order.len() > REMEMBERED_COMMANDS
            && let Some(oldest) = self.committed_order.pop_front()
        {
            self.committed.remove(&oldest);
        }
    }

    /// The next block's commands: submitters in turn, each one's oldest first, without those in `ordered`.
    pub(super) fn next_payload(&mut self, ordered: &BTreeSet<Digest>) -> Payload {
        let mut rows: Vec<_> = self
            .queues
            .values()
            .map(|queue| queue.commands.iter().filter(|digest| !ordered.contains(*digest)))
            .collect();
        if rows.is_empty() {
            return Payload::default();
        }
        let first = self.turn % rows.len();
        rows.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        let mut chosen = Vec::new();
        let mut bodies = BTreeSet::new();
        let mut bytes = 0;
        'block: loop {
            let before = chosen.len();
            for row in &mut rows {
                let Some((_, _, command)) = row.next().and_then(|digest| self.commands.get(digest)) else {
                    continue;
                };
                // Equal bodies are carried once per block, so they count once.
                let body = if bodies.insert(command.body()) { command.body().len() } else { 0 };
                bytes += command.head().len() + body;
                if chosen.len() == MAX_BLOCK_COMMANDS || bytes > MAX_BLOCK_BYTES {
                    break 'block;
                }
                chosen.push(command.clone());
            }
            if chosen.len() == before {
                break;
            }
        }
        Payload::new(chosen)
    }

    /// The oldest waiting commands of one submitter or of all, as gossip for a peer that may not have them.
    pub(super) fn oldest(&self, submitter: Option<ReplicaIndex>) -> Vec<Command> {
        let mut bytes = 0;
        self.queues
            .iter()
            .filter(|(whose, _)| submitter.is_none_or(|only| only == **whose))
            .flat_map(|(_, queue)| &queue.commands)
            .filter_map(|digest| self.commands.get(digest))
            .take(MAX_GOSSIP_COMMANDS)
            .take_while(|(_, _, command)| {
                let fits = bytes == 0 || bytes + command.size_bytes() <= MAX_GOSSIP_BYTES;
                bytes += command.size_bytes();
                fits
            })
            .map(|(_, _, command)| command.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission, Pending, Share};
    use crate::{
        consensus::{
            block::Command,
            limits::{
                MAX_COMMAND_BYTES, MAX_ORDINARY_BYTES, MAX_ORDINARY_COMMANDS, MAX_PENDING_COMMANDS,
                MAX_URGENT_COMMANDS,
            },
        },
        types::ReplicaIndex,
    };

    const ME: ReplicaIndex = ReplicaIndex::new(0);

    fn command(name: &str, bytes: usize) -> Command {
        Command::new(name.as_bytes().to_vec(), vec![0; bytes]).expect("it is not too large")
    }

    /// Hands in commands of a share until one finds no room; how many found it.
    fn flood(pending: &mut Pending, share: Share, bytes: usize) -> usize {
        let named = |number| command(&format!("{share:?} {number}"), bytes);
        (0..).take_while(|number| pending.insert(ME, share, named(*number)) == Admission::Waits).count()
    }

    #[test]
    fn a_flood_of_one_share_leaves_the_others_their_room() {
        for (bytes, of_what) in [(0, "commands"), (100_000, "bytes")] {
            let mut pending = Pending::default();
            let ordinary = flood(&mut pending, Share::Ordinary, bytes);
            assert!(ordinary <= MAX_ORDINARY_COMMANDS && ordinary * bytes <= MAX_ORDINARY_BYTES, "{of_what}");
            assert!(flood(&mut pending, Share::Urgent, bytes) > 8, "a flood of {of_what}");
            let report = command("report", MAX_COMMAND_BYTES / 2);
            assert_eq!(pending.insert(ME, Share::Own, report), Admission::Waits, "a flood of {of_what}");
        }
        let mut pending = Pending::default();
        assert_eq!(flood(&mut pending, Share::Own, 0), MAX_PENDING_COMMANDS);
        assert_eq!(flood(&mut pending, Share::Urgent, 0), MAX_URGENT_COMMANDS);
    }

    #[test]
    fn a_committed_command_gives_its_share_its_room_back() {
        let mut pending = Pending::default();
        let first = command("first", 0);
        assert_eq!(pending.insert(ME, Share::Ordinary, first.clone()), Admission::Waits);
        let others = flood(&mut pending, Share::Ordinary, 0);
        pending.commit(first.digest());
        assert_eq!(pending.insert(ME, Share::Ordinary, command("one more", 0)), Admission::Waits);
        assert_eq!(pending.insert(ME, Share::Ordinary, command("too many", 0)), Admission::Full);
        assert_eq!(pending.len(), others + 1);
    }

    #[test]
    fn what_waits_in_one_share_is_known_in_all() {
        let mut pending = Pending::default();
        assert_eq!(pending.insert(ME, Share::Ordinary, command("one", 1)), Admission::Waits);
        assert_eq!(pending.insert(ME, Share::Own, command("one", 1)), Admission::Known);
        assert_eq!(pending.len(), 1);
    }
}
