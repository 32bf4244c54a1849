//! What an adversary keeps of an honest replica: consensus, its journal, its links, and the control cycle that
//! shows it what the others derive. What goes out is the adversary's own business.
//!
//! It serves no API and no door. Invariant: it votes as the protocol says, so it does not betray itself there.

use std::{sync::Arc, time::Duration};

use quorate::{
    consensus::{
        Block, Command, Config, Recovered, ViewTimes,
        journal::{SALT_BYTES, Salt},
        task::{self, Event, Handles, Request},
        transport::{LinkSender, Links, LinksConfig},
    },
    cycle::{Cycle, CycleConfig, Seal},
    knowledge::command::EncodedCommand,
    service::{
        clock::wall_clock, config::ReplicaConfig, http_server, lifecycle::asked_to_end, replica::Membership,
    },
    types::{Committee, WindowIndex},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior},
};

/// How often an adversary looks at the clock: several times in the shortest window of a test.
const BEAT: Duration = Duration::from_millis(25);

/// A member of the committee.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) cycle: Cycle,
    pub(crate) requests: mpsc::Sender<Request>,
    events: mpsc::Receiver<Event>,
    next_window: WindowIndex,
    beats: Interval,
    end: JoinHandle<()>,
    pub(crate) links: LinkSender,
    _links: Links,
}

/// What an adversary acts upon.
#[derive(Debug)]
pub(crate) enum Moment {
    /// The cycle has moved: its outputs wait.
    Moved,
    /// The cycle has folded this block.
    Committed(Arc<Block>),
    /// This window is over and wants a report.
    Window(WindowIndex),
    /// It was asked to end, or consensus has.
    Ended,
}

impl Member {
    /// Takes the replica's place.
    pub(crate) async fn join(config: &ReplicaConfig, membership: Membership) -> anyhow::Result<Self> {
        let Membership { root, genesis, me, key } = membership;
        let committee = Arc::new(root.committee().clone());
        let core = Config {
            committee: Arc::clone(&committee),
            me,
            key: key.clone(),
            times: ViewTimes::default(),
            checkpoint_interval: genesis.parameters.checkpoint_interval,
        };
        // The salt guards against what peers make a replica store; nobody attacks an adversary's journal.
        let salt = Salt::new([0; SALT_BYTES]);
        let (opened, recovered) = task::open(core, &config.data_dir.join("journal"), salt)?;
        let (links, inbox) = Links::start(LinksConfig {
            committee: Committee::clone(&committee),
            me,
            secret: key.clone(),
            listener: http_server::listen(config.listen).await?,
            peers: config.peers.clone(),
            now: wall_clock,
        })?;
        let (Handles { requests, events, status: _ }, ends) = task::channels();
        tokio::spawn(task::run(opened, links.sender(), inbox, ends));
        let mut cycle =
            Cycle::new(CycleConfig { genesis, committee, operators: root.operators().clone(), me, key })?;
        let Recovered { notes, base, blocks, torn: _ } = recovered;
        if let Some(base) = base {
            cycle.install(&base.snapshot.to_bytes())?;
        }
        for seal in notes.iter().filter_map(|note| borsh::from_slice::<Seal>(note).ok()) {
            cycle.restore(seal);
        }
        for committed in blocks {
            cycle.commit(&committed.block);
        }
        // What the replica did before is done.
        while cycle.poll_output().is_some() {}
        let next_window = WindowIndex::containing(wall_clock(), cycle.state().genesis().parameters.window);
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = tokio::spawn(asked_to_end());
        Ok(Self { cycle, requests, events, next_window, beats, end, links: links.sender(), _links: links })
    }

    /// Waits for the next moment and lets the cycle take part in it.
    pub(crate) async fn next(&mut self) -> Moment {
        tokio::select! {
            event = self.events.recv() => match event {
                Some(Event::Committed(committed)) => {
                    self.cycle.commit(&committed.block);
                    return Moment::Committed(committed.block);
                }
                Some(Event::Endorsement { from, endorsement }) => {
                    // It raises no alarms about others.
                    let _ = self.cycle.receive(from, endorsement);
                }
                Some(
                    Event::PeerConnected(_)
                    | Event::Stable(_)
                    | Event::Diverged { .. }
                    | Event::Evidence(_),
                ) => {}
                Some(Event::Installed { snapshot, .. }) => {
                    // It says of itself what it likes; a state that it cannot read changes nothing.
                    let _ = self.cycle.install(&snapshot.to_bytes());
                }
                None => return Moment::Ended,
            },
            _ = self.beats.tick() => {
                let (now, parameters) = (wall_clock(), self.cycle.state().genesis().parameters);
                self.cycle.tick(now);
                let window = self.next_window;
                if now >= window.close(parameters.window).plus(parameters.grace) {
                    self.next_window = window.next();
                    return Moment::Window(window);
                }
            }
            _ = &mut self.end => return Moment::Ended,
        }
        Moment::Moved
    }
}

/// A command as consensus orders it.
pub(crate) fn ordered(command: EncodedCommand) -> anyhow::Result<Command> {
    Ok(Command::new(command.head, command.body)?)
}
