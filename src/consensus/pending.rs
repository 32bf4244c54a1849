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
    /// The same for the next gossip.
    gossip_turn: usize,
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
        let first = next_turn(&mut self.turn);
        let mut bodies = BTreeSet::new();
        let mut bytes = 0;
        let chosen = self.in_turns(None, first, MAX_BLOCK_COMMANDS, |command| {
            if ordered.contains(&command.digest()) {
                return Choice::Pass;
            }
            // Equal bodies are carried once per block, so they count once.
            let body = if bodies.contains(command.body()) { 0 } else { command.body().len() };
            let with_this = bytes + command.head().len() + body;
            if with_this > MAX_BLOCK_BYTES {
                return Choice::NoRoom;
            }
            bodies.insert(command.body());
            bytes = with_this;
            Choice::Take
        });
        Payload::new(chosen.into_iter().cloned().collect())
    }

    /// The oldest waiting commands of one submitter, or of all in turn, as gossip for a peer that may not have them.
    pub(super) fn oldest(&mut self, submitter: Option<ReplicaIndex>) -> Vec<Command> {
        let first = next_turn(&mut self.gossip_turn);
        let mut bytes = 0;
        let chosen = self.in_turns(submitter, first, MAX_GOSSIP_COMMANDS, |command| {
            let with_this = bytes + command.size_bytes();
            if bytes > 0 && with_this > MAX_GOSSIP_BYTES {
                return Choice::NoRoom;
            }
            bytes = with_this;
            Choice::Take
        });
        chosen.into_iter().cloned().collect()
    }

    /// Chooses from one submitter or from all in turn, each one's oldest first, so that no one keeps the others out, whatever it has
    /// waiting. A submitter whose next command finds no room is done: what it has waiting stays in order.
    fn in_turns<'a>(
        &'a self,
        submitter: Option<ReplicaIndex>,
        first: usize,
        most: usize,
        mut choose: impl FnMut(&'a Command) -> Choice,
    ) -> Vec<&'a Command> {
        let known = |digest| self.commands.get(digest).map(|(_, _, command)| command);
        let queues = self.queues.iter().filter(|(whose, _)| submitter.is_none_or(|only| only == **whose));
        let mut rows: Vec<_> = queues.map(|(_, queue)| queue.commands.iter().filter_map(known)).collect();
        let mut chosen = Vec::new();
        if !rows.is_empty() {
            let places = rows.len();
            rows.rotate_left(first % places);
        }
        while !rows.is_empty() && chosen.len() < most {
            rows.retain_mut(|row| {
                if chosen.len() == most {
                    return false;
                }
                for command in row {
                    match choose(command) {
                        Choice::Take => {
                            chosen.push(command);
                            return true;
                        }
                        Choice::Pass => {}
                        Choice::NoRoom => return false,
                    }
                }
                false
            });
        }
        chosen
    }
}

/// What becomes of a waiting command that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// It is chosen.
    Take,
    /// It is not needed; the submitter's next one is looked at.
    Pass,
    /// It finds no room, and no later one of its submitter is looked at.
    NoRoom,
}

fn next_turn(turn: &mut usize) -> usize {
    let first = *turn;
    *turn = turn.wrapping_add(1);
    first
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Admission, Pending, Share};
    use crate::{
        consensus::{
            block::Command,
            limits::{
                MAX_COMMAND_BYTES, MAX_GOSSIP_BYTES, MAX_GOSSIP_COMMANDS, MAX_ORDINARY_BYTES,
                MAX_ORDINARY_COMMANDS, MAX_PENDING_COMMANDS, MAX_URGENT_COMMANDS,
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

    /// Commands of a submitter, of some bytes each.
    fn submit(pending: &mut Pending, submitter: u16, commands: usize, bytes: usize) {
        for number in 0..commands {
            // Equal bodies would count once in a block.
            let body = vec![u8::try_from(number % 251).expect("a small remainder"); bytes];
            let command =
                Command::new(format!("{submitter}: {number}").into_bytes(), body).expect("small enough");
            let admission = pending.insert(ReplicaIndex::new(submitter), Share::Own, command);
            assert_eq!(admission, Admission::Waits);
        }
    }

    /// How many of the commands are of each of four submitters.
    fn by_submitter(commands: &[Command]) -> [usize; 4] {
        let of =
            |submitter: u8| commands.iter().filter(|command| command.head()[0] == b'0' + submitter).count();
        [0, 1, 2, 3].map(of)
    }

    #[test]
    fn gossip_holds_the_oldest_of_every_submitter_however_many_one_has() {
        let mut pending = Pending::default();
        submit(&mut pending, 0, 2 * MAX_GOSSIP_COMMANDS, 0);
        submit(&mut pending, 3, 5, 0);
        let all = pending.oldest(None);
        assert_eq!(by_submitter(&all), [MAX_GOSSIP_COMMANDS - 5, 0, 0, 5]);
        assert_eq!(by_submitter(&pending.oldest(Some(ReplicaIndex::new(3)))), [0, 0, 0, 5]);

        // One whose commands find no room beside anything else leaves the others theirs, in some of the turns.
        let mut pending = Pending::default();
        submit(&mut pending, 0, 3, MAX_GOSSIP_BYTES);
        submit(&mut pending, 1, 20, 1_000);
        submit(&mut pending, 2, 20, 1_000);
        let turns: Vec<_> = (0..3).map(|_| by_submitter(&pending.oldest(None))).collect();
        assert_eq!(turns, [[1, 0, 0, 0], [0, 20, 20, 0], [0, 20, 20, 0]]);
    }

    #[test]
    fn a_submitter_of_the_largest_commands_leaves_the_others_room_in_every_block() {
        let mut pending = Pending::default();
        submit(&mut pending, 0, 8, MAX_COMMAND_BYTES - 100);
        for submitter in 1..4 {
            submit(&mut pending, submitter, 200, 1_000);
        }
        let mut ordered = BTreeSet::new();
        for block in 0..4 {
            let payload = pending.next_payload(&ordered);
            let [large, others @ ..] = by_submitter(payload.commands());
            assert!(large >= 1, "block {block}");
            if block == 0 {
                assert_eq!(others, [200; 3], "all that the others have, beside one of the large ones");
            }
            ordered.extend(payload.commands().iter().map(Command::digest));
        }
        assert_eq!(ordered.len(), 600 + 7, "two of the large ones a block once the others have none");
    }

    #[test]
    fn what_waits_in_one_share_is_known_in_all() {
        let mut pending = Pending::default();
        assert_eq!(pending.insert(ME, Share::Ordinary, command("one", 1)), Admission::Waits);
        assert_eq!(pending.insert(ME, Share::Own, command("one", 1)), Admission::Known);
        assert_eq!(pending.len(), 1);
    }
}
