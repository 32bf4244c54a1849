//! The listener: a recording seat. It votes as the protocol says and writes down every frame that its links bring,
//! as whoever looks for contradictions wants to see them: signed, and as they came.
//!
//! It reports nothing and endorses nothing. Invariant: a frame stands in the file before it is acted upon.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use quorate::{
    consensus::{
        Config, Core, History, Input, Message, Output, ViewTimes,
        journal::{FileDisk, Identity, JournalConfig, SALT_BYTES, SEGMENT_BYTES, Salt},
        task::Frame,
        transport::{Class, LinkSender, Links, LinksConfig, LinksStatus},
    },
    service::{
        clock::wall_clock, config::ReplicaConfig, http_server, lifecycle::asked_to_end, replica::Membership,
    },
    types::Millis,
};
use tokio::time::{Instant, MissedTickBehavior};

/// How often links are looked at and the file is written out.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// Listens until it is asked to end.
pub(crate) async fn run(config: &ReplicaConfig, membership: Membership, file: &Path) -> anyhow::Result<()> {
    let (links, mut inbox) = Links::start(LinksConfig {
        committee: membership.root.committee().clone(),
        me: membership.me,
        secret: membership.key.clone(),
        listener: http_server::listen(config.listen).await?,
        peers: config.peers.clone(),
        now: wall_clock,
    })?;
    let mut seat = Seat::take(config, membership, links.sender())?;
    let mut wire = BufWriter::new(File::create(file)?);
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = tokio::spawn(asked_to_end());
    let (began, mut connects) = (Instant::now(), Vec::new());
    let clock = || Millis::new(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    loop {
        let never = Millis::from_secs(3600).plus(clock());
        let timer = began + Duration::from_millis(seat.core.next_timeout().unwrap_or(never).as_millis());
        let mut inputs = Vec::new();
        tokio::select! {
            inbound = inbox.recv() => {
                let Some(inbound) = inbound else { break };
                wire.write_all(&borsh::to_vec(&(inbound.from, inbound.frame.to_vec()))?)?;
                if let Ok(Frame::Consensus(message)) = borsh::from_slice(&inbound.frame) {
                    inputs.push(Input::Message { from: inbound.from, message });
                }
            }
            () = tokio::time::sleep_until(timer) => inputs.push(Input::Timer),
            _ = housekeeping.tick() => {
                wire.flush()?;
                inputs.extend(connected(&links.sender().status(), &mut connects));
            }
            _ = &mut end => break,
        }
        for input in inputs {
            // What a peer says wrongly is written down; that is all there is to do about it.
            let _ = seat.core.handle(clock(), input);
        }
        seat.carry_out()?;
    }
    wire.flush()?;
    links.shutdown().await;
    Ok(())
}

/// Consensus and its journal in a replica's place.
struct Seat {
    core: Core,
    history: History<FileDisk>,
    links: LinkSender,
}

impl Seat {
    /// Goes on from what the replica's journal holds.
    fn take(config: &ReplicaConfig, membership: Membership, links: LinkSender) -> anyhow::Result<Self> {
        let Membership { root, genesis, me, key } = membership;
        let identity = Identity { cluster: root.committee().cluster(), key: key.public().id() };
        let consensus = Config {
            committee: Arc::new(root.committee().clone()),
            me,
            key,
            times: ViewTimes::default(),
            checkpoint_interval: genesis.parameters.checkpoint_interval,
        };
        let disk = FileDisk::open(&config.data_dir.join("journal"))?;
        // Nobody attacks this journal.
        let salt = Salt::new([0; SALT_BYTES]);
        let journal = JournalConfig { identity, salt, segment_bytes: SEGMENT_BYTES };
        let (history, core, _) = History::open(disk, journal, consensus)?;
        Ok(Self { core, history, links })
    }

    /// Does what the core wants done, but what an application would do.
    fn carry_out(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.core.poll_output() {
            let (to, message) = match output {
                Output::Persist(record) | Output::Append(record) => {
                    self.history.append(&record)?;
                    self.history.sync()?;
                    continue;
                }
                Output::Send { to, message } => (Some(to), message),
                Output::Broadcast(message) => (None, message),
                // Others answer fetches, and nothing is folded here.
                Output::Commit(_)
                | Output::ServeFromJournal { .. }
                | Output::ServeChunks { .. }
                | Output::Stable { .. }
                | Output::Diverged { .. }
                | Output::Evidence(_)
                | Output::Install { .. } => continue,
            };
            let class = class(&message);
            let frame = borsh::to_vec(&Frame::Consensus(message))?.into();
            // A link that is down is the links' business.
            let _ = match to {
                Some(peer) => self.links.send(peer, frame, class),
                None => self.links.broadcast(&frame, class),
            };
        }
        Ok(())
    }
}

/// Peers whose links came up since the last look.
fn connected(status: &LinksStatus, seen: &mut Vec<u64>) -> Vec<Input> {
    seen.resize(status.peers.len(), 0);
    let new = status.peers.iter().zip(seen).filter_map(|(peer, seen)| {
        let before = std::mem::replace(seen, peer.connects);
        (peer.connects > before && peer.sending_since.is_some()).then_some(Input::PeerConnected(peer.peer))
    });
    new.collect()
}

const fn class(message: &Message) -> Class {
    match message {
        Message::Commands(_)
        | Message::Committed(_)
        | Message::BlockResponse(_)
        | Message::CheckpointVote(_)
        | Message::Checkpoint(_)
        | Message::Gone(_)
        | Message::ChunkRequest(_)
        | Message::Chunks(_) => Class::Bulk,
        Message::Proposal(_)
        | Message::Vote(_)
        | Message::Timeout(_)
        | Message::Certificates(_)
        | Message::BlockRequest(_) => Class::Urgent,
    }
}
