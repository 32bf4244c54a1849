//! Production cores as an automaton: every state that was met, once, with the step that each input makes of it.
//!
//! It has no network: who hears what is the model's to say. Invariant: states with one number answer alike to
//! everything, for a state is told by all that the core would print of itself.

use quorate::{
    consensus::{
        Block, BlockId, Command, Config, Core, Input, Message, Output, Proposal, Record, Recovery, Timeout,
        Vote,
    },
    types::{Committee, Digest, Millis},
};
use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use super::{config, replica};

/// A time after which every timer of a view that began at zero has ended.
pub const TIMER_ENDS: Millis = Millis::from_secs(10);

/// A state's number.
pub type State = u32;

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// It hears a message, by its number.
    Hears {
        /// From whom.
        from: u8,
        /// What.
        message: u32,
    },
    /// Its timer ends.
    Timer,
    /// A link to this peer comes up.
    Reaches(u8),
    /// It crashes and starts again with its journal.
    Restart,
    /// It crashes and starts again without its journal: a planted fault.
    Forget,
}

/// What a replica sends: to one, or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// To whom; none: to all others.
    pub to: Option<u8>,
    /// The message's number.
    pub message: u32,
}

/// A message that says something of a view, by what it is.
#[derive(Clone, Copy, Debug)]
pub enum Statement<'a> {
    /// A proposal.
    Proposal(&'a Proposal),
    /// A vote.
    Vote(&'a Vote),
    /// A timeout.
    Timeout(&'a Timeout),
    /// It says nothing of its own.
    Other,
}

/// A step of one replica.
#[derive(Clone, Debug)]
pub struct Step {
    /// The state after it.
    pub to: State,
    /// What was sent, in order.
    pub sent: Rc<[Sent]>,
}

/// One replica's state.
#[derive(Debug)]
pub struct Local {
    /// Whose it is.
    place: u8,
    client: u8,
    /// The production core.
    pub core: Core,
    /// The committed blocks, lowest first.
    pub committed: Vec<BlockId>,
    /// The request for blocks that was not answered yet: of whom, by the message's number.
    pub asked: Option<(u8, u32)>,
    /// How often it was started again.
    pub restarts: u8,
    /// How many commands its client handed in.
    pub commands: u32,
    journal: Vec<Record>,
}

impl Local {
    /// Whether its timer has not ended since the view began.
    #[must_use]
    pub fn timer_runs(&self) -> bool {
        self.core.next_timeout().is_some_and(|due| due <= TIMER_ENDS)
    }
}

/// The automaton.
#[derive(Debug)]
pub struct Automaton {
    committee: Arc<Committee>,
    /// How often a replica may start again with its journal.
    restarts: u8,
    locals: Vec<Local>,
    by_print: BTreeMap<Digest, State>,
    steps: BTreeMap<(State, Millis, Event), Step>,
    messages: Vec<Message>,
    by_bytes: BTreeMap<Digest, u32>,
    blocks: BTreeMap<BlockId, Arc<Block>>,
}

impl Automaton {
    /// Without any state. Each replica starts again at most so often; its journal tells states apart until then.
    #[must_use]
    pub const fn new(committee: Arc<Committee>, restarts: u8) -> Self {
        Self {
            committee,
            restarts,
            locals: Vec::new(),
            by_print: BTreeMap::new(),
            steps: BTreeMap::new(),
            messages: Vec::new(),
            by_bytes: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// The state of a replica that starts for the first time, with what it says. Different clients hand in different
    /// commands.
    pub fn start(&mut self, place: u8, client: u8) -> Step {
        let core = Recovery::new(self.config(place)).finish();
        let (committed, journal) = (Vec::new(), Vec::new());
        self.settle(
            Local { place, client, core, committed, asked: None, restarts: 0, commands: 0, journal },
            Millis::ZERO,
        )
    }

    /// The state of a replica that starts with this journal, after so many starts.
    ///
    /// # Panics
    /// When the journal does not tell one replica's history.
    pub fn resume(&mut self, place: u8, journal: Vec<Record>, restarts: u8) -> State {
        let core = Recovery::new(self.config(place)).finish();
        let mut local = Local {
            place,
            client: 0,
            core,
            committed: Vec::new(),
            asked: None,
            restarts,
            commands: 0,
            journal,
        };
        self.restart(&mut local, Millis::ZERO);
        local.restarts = restarts;
        self.settle(local, Millis::ZERO).to
    }

    /// What an event makes of a state, at a time on the replica's clock.
    ///
    /// # Panics
    /// When the core refuses its timer or a link, or its own journal: no input makes it.
    pub fn step(&mut self, state: State, now: Millis, event: Event) -> Step {
        if let Some(step) = self.steps.get(&(state, now, event)) {
            return step.clone();
        }
        let local = &self.locals[state as usize];
        let mut next = Local {
            place: local.place,
            client: local.client,
            core: local.core.clone(),
            committed: local.committed.clone(),
            asked: local.asked,
            restarts: local.restarts,
            commands: local.commands,
            journal: local.journal.clone(),
        };
        match event {
            Event::Hears { from, message } => {
                let input =
                    Input::Message { from: replica(from), message: self.messages[message as usize].clone() };
                // What it refuses, it refuses: the model only looks at what becomes of it.
                let _refused = next.core.handle(now, input).is_err();
            }
            Event::Timer => {
                next.core.handle(now, Input::Timer).expect("a timer is no bad input");
            }
            Event::Reaches(peer) => {
                let input = Input::PeerConnected(replica(peer));
                next.core.handle(now, input).expect("a link is no bad input");
            }
            Event::Restart => self.restart(&mut next, now),
            Event::Forget => {
                next.journal.clear();
                self.restart(&mut next, now);
            }
        }
        let step = self.settle(next, now);
        self.steps.insert((state, now, event), step.clone());
        step
    }

    fn restart(&self, local: &mut Local, now: Millis) {
        let mut recovery = Recovery::new(self.config(local.place));
        local.committed.clear();
        for record in &local.journal {
            let committed = recovery.record(record.clone()).expect("an own journal is consistent");
            local.committed.extend(committed.map(|committed| committed.block.id()));
        }
        local.core = recovery.finish();
        local.core.handle(now, Input::Timer).expect("a timer is no bad input");
        local.restarts += 1;
    }

    /// Keeps the replica awake, collects what it sends, and finds the state's number.
    fn settle(&mut self, mut local: Local, now: Millis) -> Step {
        let mut sent = Vec::new();
        loop {
            while let Some(output) = local.core.poll_output() {
                self.carry_out(&mut local, output, &mut sent);
            }
            if local.core.is_awake() {
                break;
            }
            let command = Command::new(local.commands.to_le_bytes().to_vec(), vec![local.client]);
            local.commands += 1;
            let submit = Input::Submit(command.expect("it is small"));
            local.core.handle(now, submit).expect("nothing else waits");
        }
        if local.core.fetching().is_none() {
            local.asked = None;
        }
        Step { to: self.number(local), sent: sent.into() }
    }

    fn carry_out(&mut self, local: &mut Local, output: Output, sent: &mut Vec<Sent>) {
        match output {
            Output::Persist(record) | Output::Append(record) => {
                if let Record::Block(block) = &record {
                    self.know(block);
                }
                if local.restarts < self.restarts {
                    local.journal.push(record);
                }
            }
            Output::Send { to, message } => {
                let asks = matches!(message, Message::BlockRequest(_));
                let (to, message) = (super::place(to), self.message(message));
                if asks {
                    local.asked = Some((to, message));
                }
                sent.push(Sent { to: Some(to), message });
            }
            // Every client keeps its own replica awake; commands travel in blocks alone.
            Output::Broadcast(Message::Commands(_)) => {}
            Output::Broadcast(message) => sent.push(Sent { to: None, message: self.message(message) }),
            Output::Commit(committed) => local.committed.push(committed.block.id()),
            // What is proven of others changes nothing that is voted for.
            Output::Evidence(_) => {}
            Output::ServeFromJournal { .. }
            | Output::ServeChunks { .. }
            | Output::Stable { .. }
            | Output::Diverged { .. }
            | Output::Install { .. } => panic!("so few blocks are all in memory, and no checkpoint is made"),
        }
    }

    fn number(&mut self, local: Local) -> State {
        let print = self.print(&local);
        let next = State::try_from(self.locals.len()).expect("far fewer states fit into memory");
        let state = *self.by_print.entry(print).or_insert(next);
        if state == next {
            self.locals.push(local);
        }
        state
    }

    /// All that decides how a replica goes on. With a journal, that is also what it would be after a restart.
    fn print(&self, local: &Local) -> Digest {
        let mut text = format!(
            "{:?}{:?}{:?}{:?}",
            local.core,
            local.committed,
            local.asked,
            (local.client, local.restarts, local.commands)
        );
        if local.restarts < self.restarts {
            let mut recovery = Recovery::new(self.config(local.place));
            for record in &local.journal {
                recovery.record(record.clone()).expect("an own journal is consistent");
            }
            text.push_str(&format!("{:?}", recovery.finish()));
        }
        Digest::of(text.as_bytes())
    }

    fn config(&self, place: u8) -> Config {
        config(&self.committee, place)
    }

    /// A message's number.
    pub fn message(&mut self, message: Message) -> u32 {
        if let Message::Proposal(proposal) = &message {
            self.know(&proposal.block);
        }
        let bytes = borsh::to_vec(&message).expect("writing to memory does not fail");
        let next = u32::try_from(self.messages.len()).expect("far fewer messages fit into memory");
        let number = *self.by_bytes.entry(Digest::of(&bytes)).or_insert(next);
        if number == next {
            self.messages.push(message);
        }
        number
    }

    fn know(&mut self, block: &Arc<Block>) {
        self.blocks.entry(block.id()).or_insert_with(|| Arc::clone(block));
    }

    /// A message by its number.
    #[must_use]
    pub fn said(&self, message: u32) -> &Message {
        &self.messages[message as usize]
    }

    /// What a message says of a view.
    #[must_use]
    pub fn statement(&self, message: u32) -> Statement<'_> {
        let message = self.said(message);
        if let Message::Proposal(proposal) = message {
            Statement::Proposal(proposal)
        } else if let Message::Vote(vote) = message {
            Statement::Vote(vote)
        } else if let Message::Timeout(timeout) = message {
            Statement::Timeout(timeout)
        } else {
            Statement::Other
        }
    }

    /// A state by its number.
    #[must_use]
    pub fn local(&self, state: State) -> &Local {
        &self.locals[state as usize]
    }

    /// A block that somebody proposed.
    #[must_use]
    pub fn block(&self, id: BlockId) -> Option<&Arc<Block>> {
        self.blocks.get(&id)
    }

    /// Whether a block is the other or descends from it.
    #[must_use]
    pub fn descends(&self, block: BlockId, from: BlockId) -> bool {
        let mut at = Some(block);
        while let Some(id) = at {
            if id == from {
                return true;
            }
            at = self.block(id).map(|block| block.parent());
        }
        false
    }

    /// How many states of one replica were met.
    #[must_use]
    pub fn states(&self) -> usize {
        self.locals.len()
    }

    /// How many steps the core was asked for.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }
}
