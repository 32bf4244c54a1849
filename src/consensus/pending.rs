//! Commands that wait to be ordered, by submitter. They stay until they are committed, so those of a block
//! that lost its place are there again by themselves (rule I2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    block::{Command, Payload},
    digest_map::DigestMap,
    limits::{
        MAX_BLOCK_BYTES, MAX_BLOCK_COMMANDS, MAX_GOSSIP_BYTES, MAX_GOSSIP_COMMANDS, MAX_PENDING_BYTES,
        MAX_PENDING_COMMANDS, REMEMBERED_COMMANDS,
    },
};
use crate::types::{Digest, ReplicaIndex};

/// Some thousand commands wait under full load.
const WAITING_SHARDS: usize = 1 << 8;

/// All remembered commands, 16 in each.
const COMMITTED_SHARDS: usize = REMEMBERED_COMMANDS / 16;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It waits now.
    Waits,
    /// It waits or was committed already.
    Known,
    /// Its submitter has too many waiting.
    Full,
}

#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<Digest>,
    bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    commands: DigestMap<(ReplicaIndex, Command), WAITING_SHARDS>,
    queues: BTreeMap<ReplicaIndex, Queue>,
    /// Whose turn is first in the next block, so that no submitter is served last for ever.
    turn: usize,
    committed: DigestMap<(), COMMITTED_SHARDS>,
    committed_order: VecDeque<Digest>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn insert(&mut self, submitter: ReplicaIndex, command: Command) -> Admission {
        let digest = command.digest();
        if self.commands.contains(&digest) || self.committed.contains(&digest) {
            return Admission::Known;
        }
        let queue = self.queues.entry(submitter).or_default();
        let bytes = queue.bytes + command.size_bytes();
        if queue.commands.len() >= MAX_PENDING_COMMANDS || bytes > MAX_PENDING_BYTES {
            return Admission::Full;
        }
        queue.bytes = bytes;
        queue.commands.push_back(digest);
        self.commands.insert(digest, (submitter, command));
        Admission::Waits
    }

    /// Forgets a committed command and remembers that it was committed; says whether it was the first time.
    pub(super) fn commit(&mut self, digest: Digest) {
        if let Some((submitter, command)) = self.commands.remove(&digest)
            && let Some(queue) = self.queues.get_mut(&submitter)
        {
            queue.bytes -= command.size_bytes();
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
                let Some((_, command)) = row.next().and_then(|digest| self.commands.get(digest)) else {
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
            .take_while(|(_, command)| {
                let fits = bytes == 0 || bytes + command.size_bytes() <= MAX_GOSSIP_BYTES;
                bytes += command.size_bytes();
                fits
            })
            .map(|(_, command)| command.clone())
            .collect()
    }
}
