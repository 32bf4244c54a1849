//! A long history without the time that it took: four replicas' consensus in memory, and the journal of the first.
//!
//! Every block holds a command and was voted for by all. Invariant: the journal is what the replica would have written.

use std::{collections::VecDeque, path::Path, sync::Arc};

use quorate::{
    consensus::{
        Command, Config, Core, Input, Message, Output, RECORD, Recovery, ViewTimes,
        journal::{FileDisk, Identity, Journal, JournalConfig, SALT_BYTES, SEGMENT_BYTES, Salt},
    },
    service::replica::Membership,
    types::{Height, Millis, ReplicaIndex},
};

use crate::harness::journal::config;

/// Bytes of a command: a report of a few series.
const COMMAND_BYTES: usize = 1_000;

/// Writes the journal of the first of these replicas, with so many committed blocks.
pub(crate) fn write(replica_files: &[&Path], blocks: u64) {
    let members: Vec<Membership> = replica_files
        .iter()
        .map(|file| Membership::read(&config(file)).expect("the cluster is founded"))
        .collect();
    let identity =
        Identity { cluster: members[0].root.committee().cluster(), key: members[0].key.public().id() };
    let disk = FileDisk::open(&config(replica_files[0]).data_dir.join("journal")).expect("nobody runs");
    let salt = Salt::new([7; SALT_BYTES]);
    let journal_config = JournalConfig { identity, salt, segment_bytes: SEGMENT_BYTES };
    let (mut journal, _) = Journal::open(disk, journal_config, |_| {}).expect("the folder is empty");
    let mut cores: Vec<Core> = members.iter().map(core).collect();
    let mut underway: VecDeque<(usize, usize, Message)> = VecDeque::new();
    let mut turn = 0_u64;
    while cores[0].committed_height() < Height::new(blocks) {
        let now = Millis::new(turn);
        if underway.is_empty() {
            turn += 1;
            let command = Command::new(turn.to_le_bytes().to_vec(), vec![b'x'; COMMAND_BYTES]);
            cores[0].handle(now, Input::Submit(command.expect("it is small"))).expect("there is room");
            carry_out(0, &mut cores[0], &mut underway, &mut journal);
        }
        let Some((from, to, message)) = underway.pop_front() else { continue };
        let from = ReplicaIndex::new(u16::try_from(from).expect("it is small"));
        // What comes late is refused; that is part of the history.
        let _ = cores[to].handle(now, Input::Message { from, message });
        carry_out(to, &mut cores[to], &mut underway, &mut journal);
    }
    journal.sync().expect("the disk works");
}

fn core(member: &Membership) -> Core {
    let consensus = Config {
        committee: Arc::new(member.root.committee().clone()),
        me: member.me,
        key: member.key.clone(),
        times: ViewTimes::default(),
        // The application's states are not here.
        checkpoint_interval: 0,
    };
    Recovery::new(consensus).finish()
}

fn carry_out(
    me: usize,
    core: &mut Core,
    underway: &mut VecDeque<(usize, usize, Message)>,
    journal: &mut Journal<FileDisk>,
) {
    while let Some(output) = core.poll_output() {
        match output {
            Output::Persist(record) | Output::Append(record) => {
                if me == 0 {
                    let record = borsh::to_vec(&record).expect("memory takes all");
                    journal.append(RECORD, &record).expect("the disk works");
                }
            }
            Output::Send { to, message } => underway.push_back((me, to.as_usize(), message)),
            Output::Broadcast(message) => {
                underway.extend((0..4).filter(|to| *to != me).map(|to| (me, to, message.clone())));
            }
            Output::Commit(_)
            | Output::ServeFromJournal { .. }
            | Output::ServeChunks { .. }
            | Output::Stable { .. }
            | Output::Diverged { .. }
            | Output::Evidence(_)
            | Output::Install { .. } => {}
        }
    }
}
