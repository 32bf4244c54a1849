//! Breadth first over everything that honest replicas and Byzantine ones can do within a few views: all
//! interleavings of votes, timeouts and certificates over production cores.
//!
//! The network is the set of what was said: everybody may hear any of it at any time, in any order, any number of
//! times, or never. Votes and timeouts are heard as the certificates that they add up to; who formed one does not
//! matter. Byzantine replicas say whatever helps: their votes and timeouts stand in every certificate that lacks only them, with
//! any highest certificate there is, and in their views they propose every block on every certificate, by every
//! entry, valid or not. They cannot forge.
//!
//! What a replica hears without saying anything new concerns nobody else, and can be heard as well just before it
//! next speaks, for what was said stays said. So a step is: a replica hears any messages in any order, until it
//! says something new. What is said in a view rests on certificates of earlier views alone, so views are taken one
//! after the other: nobody speaks in a view that is closed, and what was said there lives on in its certificates.
//!
//! With [`Bound::merges`], a replica at the beginning of a view is its lock: it goes on as if it had just started with a
//! journal that holds no more, and fetches the blocks that it needs. That rests on rule V1, by which votes and timeouts of
//! earlier views decide nothing later, and on the rule that nothing depends on who signed a certificate.
//! Without it, only all that a core would print makes states equal. Invariant: every state that is reached by
//! speaking is visited, once.

mod heard;

use quorate::{
    consensus::{
        Block, BlockId, BlockResponse, Certificates, Message, Payload, QuorumCertificate, Record, Timeout,
        TimeoutCertificate, Vote, VoteEntry,
    },
    types::{Committee, Millis, Signature, View},
};
use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc, sync::Arc};

use super::{
    REPLICAS,
    automaton::{Automaton, Event, Sent, State, Statement, TIMER_ENDS},
    committee, key, leader, replica,
};
use crate::{letter::Words, statements, trace::describe};

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Who is Byzantine.
    pub byzantine: Vec<u8>,
    /// The last view that anybody speaks in.
    pub views: u64,
    /// How often each honest replica may crash and start again with its journal.
    pub restarts: u8,
    /// A planted fault: this replica may crash once and start again without its journal.
    pub forgets: Option<u8>,
    /// Whether replicas with equal locks are taken for equal at the beginning of a view.
    pub merges: bool,
    /// No more states than this are visited.
    pub most_states: usize,
}

/// What was explored.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Distinct states of the whole.
    pub states: usize,
    /// Steps between them, those that lead back among them.
    pub transitions: u64,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// Distinct states of one replica.
    pub local_states: usize,
    /// In how many states a block can be committed.
    pub with_commits: usize,
    /// In how many states a block was certified and then a later one that does not descend from it.
    pub with_unlocks: usize,
    /// Whether all states within the bound were visited.
    pub complete: bool,
    /// The first broken invariant, and how it came about.
    pub violation: Option<(String, Vec<String>)>,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, depth, local_states, with_commits, with_unlocks, .. } = self;
        write!(
            f,
            "states={states} transitions={transitions} depth={depth} local_states={local_states} with_commits={with_commits} with_unlocks={with_unlocks}"
        )
    }
}

/// What one honest replica has said, by view, as the messages' numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    votes: BTreeMap<View, (BlockId, u32)>,
    timeouts: BTreeMap<View, u32>,
    proposals: BTreeMap<View, u32>,
}

/// An honest replica in a state of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Seat {
    state: State,
    /// What it has said in the view that is not closed.
    said: u32,
}

/// A state of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Whole {
    /// The view in which replicas speak.
    view: View,
    /// What can be heard of the views before.
    past: u32,
    seats: [Seat; REPLICAS as usize],
}

impl Said {
    /// The newest view that it is about.
    fn newest(&self) -> Option<View> {
        let newest = [
            self.votes.keys().next_back(),
            self.timeouts.keys().next_back(),
            self.proposals.keys().next_back(),
        ];
        newest.into_iter().flatten().max().copied()
    }
}

/// What lives on of the closed views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Past {
    certified: BTreeMap<View, QuorumCertificate>,
    /// Timeout certificates of the last closed view: earlier ones lead nowhere.
    timed_out: Vec<TimeoutCertificate>,
    /// Proposals of certified blocks.
    proposals: Vec<(u8, u32)>,
}

/// What makes replicas equal at the beginning of a view: the place, the lock, how often it was started.
type Likeness = (u8, View, (View, BlockId), u8);

/// What can be heard, given what was said.
#[derive(Debug)]
struct Heard {
    /// A number that those share in which the same can be heard.
    number: u32,
    messages: Vec<(u8, u32)>,
    certified: BTreeMap<View, QuorumCertificate>,
    timed_out: Vec<TimeoutCertificate>,
    /// The newest block that can be committed, with its view (rule C1, restated).
    committed: Option<(View, BlockId)>,
    broken: Option<String>,
}

/// The steps of one replica: how each ends, in which state, and what it has said then.
type Steps = Rc<[(Event, State, u32)]>;

#[derive(Debug)]
struct Search {
    bound: Bound,
    committee: Arc<Committee>,
    automaton: Automaton,
    said: Vec<Said>,
    said_numbers: BTreeMap<Said, u32>,
    pasts: Vec<Past>,
    past_numbers: BTreeMap<Vec<(u8, u32)>, u32>,
    likenesses: BTreeMap<Likeness, State>,
    heard: BTreeMap<(View, u32, [u32; REPLICAS as usize]), Rc<Heard>>,
    signatures: RefCell<BTreeMap<(u8, Vec<u8>), Signature>>,
    heard_numbers: BTreeMap<Vec<(u8, u32)>, u32>,
    steps: BTreeMap<(View, State, u32, u32), Steps>,
    numbers: BTreeMap<Whole, usize>,
    /// Each state with the one before it and the step between.
    visited: Vec<(Whole, usize, u8, Event)>,
    explored: Explored,
}

/// Visits every state within the bound, until an invariant breaks.
#[must_use]
pub fn explore(bound: Bound) -> Explored {
    let committee = committee();
    let restarts = bound.restarts;
    let mut search = Search {
        bound,
        automaton: Automaton::new(Arc::clone(&committee), restarts),
        committee,
        said: vec![Said::default()],
        said_numbers: BTreeMap::from([(Said::default(), 0)]),
        pasts: vec![Past::default()],
        past_numbers: BTreeMap::from([(Vec::new(), 0)]),
        likenesses: BTreeMap::new(),
        heard: BTreeMap::new(),
        signatures: RefCell::new(BTreeMap::new()),
        heard_numbers: BTreeMap::new(),
        steps: BTreeMap::new(),
        numbers: BTreeMap::new(),
        visited: Vec::new(),
        explored: Explored {
            states: 0,
            transitions: 0,
            depth: 0,
            local_states: 0,
            with_commits: 0,
            with_unlocks: 0,
            complete: false,
            violation: None,
        },
    };
    search.run();
    let Search { automaton, visited, mut explored, .. } = search;
    explored.states = visited.len();
    explored.local_states = automaton.states();
    explored
}

impl Search {
    fn run(&mut self) {
        let mut whole = Whole { view: View::new(1), ..Whole::default() };
        for at in self.honest() {
            let step = self.automaton.start(at, 0);
            let (said, broken) = self.say(at, whole.view, 0, &step.sent);
            self.keep(broken);
            whole.seats[usize::from(at)] = Seat { state: step.to, said };
        }
        self.visit(whole, 0, 0, Event::Timer);
        let (mut from, mut layer_ends) = (0, self.visited.len());
        while from < self.visited.len() && self.explored.violation.is_none() {
            if self.visited.len() > self.bound.most_states {
                return;
            }
            if from == layer_ends {
                self.explored.depth += 1;
                layer_ends = self.visited.len();
            }
            self.expand(from);
            from += 1;
        }
        self.explored.complete = self.explored.violation.is_none();
    }

    /// Anybody's signature: the model holds all keys, and asks for those that were or may be given.
    fn sign(&self, at: u8, statement: Vec<u8>) -> Signature {
        let mut signatures = self.signatures.borrow_mut();
        *signatures.entry((at, statement)).or_insert_with_key(|(at, statement)| key(*at).sign(statement))
    }

    fn honest(&self) -> Vec<u8> {
        (0..REPLICAS).filter(|at| !self.bound.byzantine.contains(at)).collect()
    }

    fn expand(&mut self, from: usize) {
        let whole = self.visited[from].0;
        let heard = self.heard(&whole);
        for at in self.honest() {
            for (event, state, said) in self.steps(at, &whole, &heard).iter() {
                self.explored.transitions += 1;
                let mut next = whole;
                let seat = &mut next.seats[usize::from(at)];
                (seat.state, seat.said) = (*state, *said);
                self.visit(next, from, at, *event);
            }
            if let Some((what, way)) = self.explored.violation.take() {
                let way = if way.is_empty() { self.way_to(from) } else { way };
                self.explored.violation = Some((what, way));
                return;
            }
        }
        if whole.view.number() <= self.bound.views && leads_on(whole.view, &heard) {
            let next = self.close(&whole, &heard);
            self.visit(next, from, REPLICAS, Event::Timer);
        }
    }

    /// The beginning of the next view: nobody says anything in this one any more.
    fn close(&mut self, whole: &Whole, heard: &Heard) -> Whole {
        let view = whole.view;
        let mut past = Past { certified: heard.certified.clone(), ..Past::default() };
        past.timed_out = heard.timed_out.iter().filter(|tc| tc.view == view).cloned().collect();
        let certifies = |message: u32| match self.automaton.statement(message) {
            Statement::Proposal(proposal) => {
                past.certified.values().any(|qc| qc.block == proposal.block.id())
            }
            Statement::Vote(_) | Statement::Timeout(_) | Statement::Other => false,
        };
        if !self.bound.merges {
            past.proposals =
                heard.messages.iter().copied().filter(|(_, message)| certifies(*message)).collect();
        }
        let mut next = *whole;
        for at in self.honest() {
            let seat = &mut next.seats[usize::from(at)];
            seat.said = 0;
            if self.bound.merges {
                seat.state = self.alike(at, view, seat.state);
            }
        }
        next.view = view.next();
        next.past = self.past(past);
        next
    }

    /// A replica with the same lock that has just started, and that voted and gave up in the view that is closed, for
    /// whatever block.
    fn alike(&mut self, at: u8, view: View, state: State) -> State {
        let local = self.automaton.local(state);
        let (lock, restarts) = (local.core.high_qc().get().clone(), local.restarts);
        let likeness: Likeness = (at, view, (lock.view, lock.block), restarts);
        if let Some(known) = self.likenesses.get(&likeness) {
            return *known;
        }
        let genesis = QuorumCertificate::genesis(&self.committee);
        let voted = Arc::new(Block::new(view, replica(leader(view)), genesis, Payload::default()));
        let statement = statements::vote(&self.committee, view, voted.height(), voted.id());
        let signature = self.sign(at, statement);
        let vote = Vote { view, height: voted.height(), block: voted.id(), voter: replica(at), signature };
        let signature = self.sign(at, statements::timeout(&self.committee, view, lock.view));
        let timeout = Timeout { view, high_qc: lock, entry: None, sender: replica(at), signature };
        let journal = vec![
            Record::Block(voted),
            Record::Vote { vote, entry: VoteEntry::Justification, high_qc: None },
            Record::Timeout(timeout),
        ];
        let like = self.automaton.resume(at, journal, restarts);
        self.likenesses.insert(likeness, like);
        like
    }

    fn past(&mut self, past: Past) -> u32 {
        let mut print: Vec<(u8, u32)> = past.proposals.clone();
        for qc in past.certified.values() {
            let certificates = Certificates { high_qc: qc.clone(), high_tc: None };
            print.push((0, self.automaton.message(Message::Certificates(certificates))));
        }
        for tc in &past.timed_out {
            let certificates = Certificates { high_qc: tc.high_qc.clone(), high_tc: Some(tc.clone()) };
            print.push((0, self.automaton.message(Message::Certificates(certificates))));
        }
        let next = u32::try_from(self.pasts.len()).expect("far fewer fit into memory");
        let number = *self.past_numbers.entry(print).or_insert(next);
        if number == next {
            self.pasts.push(past);
        }
        number
    }

    /// All steps of a replica that end with something new said in the view.
    fn steps(&mut self, at: u8, whole: &Whole, heard: &Heard) -> Steps {
        let Seat { state, said, .. } = whole.seats[usize::from(at)];
        let asked = (whole.view, state, said, heard.number);
        if let Some(steps) = self.steps.get(&asked) {
            return Rc::clone(steps);
        }
        let mut steps = Vec::new();
        let (mut silent, mut next) = (vec![state], 0);
        while let Some(state) = silent.get(next).copied() {
            next += 1;
            for event in self.events(at, whole.view, state, heard) {
                let now = if event == Event::Timer { TIMER_ENDS } else { Millis::ZERO };
                let step = self.automaton.step(state, now, event);
                let (says, broken) = self.say(at, whole.view, said, &step.sent);
                self.keep(broken);
                let broken = self.invariants_of_one(at, step.to, heard);
                self.keep(broken);
                if says != said {
                    // What it says in a later view, it says when that view's turn has come.
                    let in_time = self.said[says as usize].newest() == Some(whole.view);
                    if in_time && whole.view.number() <= self.bound.views {
                        steps.push((event, step.to, says));
                    }
                } else if !silent.contains(&step.to)
                    && self.automaton.local(step.to).core.view() <= whole.view
                {
                    silent.push(step.to);
                }
            }
        }
        let steps: Steps = steps.into();
        self.steps.insert(asked, Rc::clone(&steps));
        steps
    }

    /// Keeps the first broken invariant; the way to it is added where it is known.
    fn keep(&mut self, broken: Option<String>) {
        let kept = self.explored.violation.take();
        self.explored.violation = kept.or(broken.map(|what| (what, Vec::new())));
    }

    /// What can happen to a replica next.
    fn events(&mut self, at: u8, view: View, state: State, heard: &Heard) -> Vec<Event> {
        let mut events: Vec<Event> = heard
            .messages
            .iter()
            .map(|(from, message)| Event::Hears { from: *from, message: *message })
            .collect();
        let local = self.automaton.local(state);
        // Who gives the last view up says nothing within the bound any more.
        if local.timer_runs() && view.number() < self.bound.views {
            events.push(Event::Timer);
        }
        if local.restarts < self.bound.restarts {
            events.push(Event::Restart);
        }
        if local.restarts == 0 && self.bound.forgets == Some(at) {
            events.push(Event::Forget);
        }
        if let Some((from, request)) = local.asked {
            events.extend(self.answer(request, heard).map(|message| Event::Hears { from, message }));
        }
        events
    }

    /// The answer to a fetch, once the certificate that it is for can be heard, as it can for whoever asks.
    fn answer(&mut self, request: u32, heard: &Heard) -> Option<u32> {
        let Message::BlockRequest(request_of) = self.automaton.said(request).clone() else { return None };
        let tip = heard.certified.values().find(|qc| qc.block == request_of.target)?.clone();
        let mut blocks = Vec::new();
        let mut at = request_of.target;
        while let Some(block) = self.heard_block(at, heard).filter(|block| block.height() > request_of.above)
        {
            at = block.parent();
            blocks.push(block);
        }
        blocks.reverse();
        Some(self.automaton.message(Message::BlockResponse(BlockResponse { blocks, tip })))
    }

    /// A block as it was proposed, with the very certificate that can be heard here.
    fn heard_block(&self, id: BlockId, heard: &Heard) -> Option<Arc<Block>> {
        let proposed =
            heard.messages.iter().find_map(|(_, message)| match self.automaton.statement(*message) {
                Statement::Proposal(proposal) if proposal.block.id() == id => Some(&proposal.block),
                Statement::Proposal(_) | Statement::Vote(_) | Statement::Timeout(_) | Statement::Other => {
                    None
                }
            });
        proposed.or_else(|| self.automaton.block(id)).cloned()
    }

    /// Adds what a replica sent to what it has said. What it says again of closed views is nothing new.
    fn say(&mut self, at: u8, view: View, before: u32, sent: &[Sent]) -> (u32, Option<String>) {
        let mut said = self.said[before as usize].clone();
        let mut first_broken = None;
        for Sent { message, .. } in sent {
            let broken = match self.automaton.statement(*message) {
                Statement::Vote(vote) if vote.view >= view => {
                    let newest = said.timeouts.keys().next_back();
                    let late = newest.is_some_and(|newest| *newest >= vote.view);
                    let new = !said.votes.contains_key(&vote.view);
                    let known = *said.votes.entry(vote.view).or_insert((vote.block, *message));
                    if known.0 != vote.block {
                        Some(format!("{at} signed two votes in view {}", vote.view))
                    } else {
                        (new && late)
                            .then(|| format!("{at} voted in view {} after it gave that up", vote.view))
                    }
                }
                Statement::Timeout(timeout) if timeout.view >= view => {
                    let known = *said.timeouts.entry(timeout.view).or_insert(*message);
                    (known != *message).then(|| format!("{at} signed two timeouts for view {}", timeout.view))
                }
                Statement::Proposal(proposal) if proposal.block.view() >= view => {
                    let view = proposal.block.view();
                    let known = *said.proposals.entry(view).or_insert(*message);
                    (known != *message).then(|| format!("{at} signed two proposals for view {view}"))
                }
                Statement::Proposal(_) | Statement::Vote(_) | Statement::Timeout(_) | Statement::Other => {
                    None
                }
            };
            first_broken = first_broken.or(broken);
        }
        let next = u32::try_from(self.said.len()).expect("far fewer fit into memory");
        let number = *self.said_numbers.entry(said.clone()).or_insert(next);
        if number == next {
            self.said.push(said);
        }
        (number, first_broken)
    }

    fn visit(&mut self, whole: Whole, before: usize, at: u8, event: Event) {
        let number = self.visited.len();
        let new = *self.numbers.entry(whole).or_insert(number) == number;
        if new {
            self.visited.push((whole, before, at, event));
            let broken = self.invariants_of_all(&whole);
            self.keep(broken);
        }
        if let Some((what, way)) = self.explored.violation.take() {
            let way = if way.is_empty() { self.way_to(self.numbers[&whole]) } else { way };
            self.explored.violation = Some((what, way));
        }
    }

    /// What must hold of what was said.
    fn invariants_of_all(&mut self, whole: &Whole) -> Option<String> {
        let heard = self.heard(whole);
        if heard.broken.is_some() {
            return heard.broken.clone();
        }
        let certified: Vec<_> = heard.certified.values().collect();
        let replaced = |pair: &[&QuorumCertificate]| !self.automaton.descends(pair[1].block, pair[0].block);
        self.explored.with_unlocks += usize::from(certified.windows(2).any(replaced));
        let (view, tip) = heard.committed?;
        self.explored.with_commits += 1;
        certified.iter().find(|qc| qc.view > view && !self.automaton.descends(qc.block, tip)).map(|qc| {
            format!("a block is certified in view {} beside the one that view {view} committed", qc.view)
        })
    }

    /// What must hold of a replica in a state that it can reach.
    fn invariants_of_one(&self, at: u8, state: State, heard: &Heard) -> Option<String> {
        let local = self.automaton.local(state);
        if local.core.forgotten().is_some() && self.bound.forgets != Some(at) {
            return Some(format!("{at} takes its own journal for lost"));
        }
        let may_commit = |block| heard.committed.is_some_and(|(_, tip)| self.automaton.descends(tip, block));
        local
            .committed
            .iter()
            .find(|block| !may_commit(**block))
            .map(|block| format!("{at} commits {block:?}, which no two consecutive views certify"))
    }

    fn way_to(&self, number: usize) -> Vec<String> {
        let mut way = Vec::new();
        let mut at = number;
        while at != 0 {
            let (_, before, who, event) = self.visited[at];
            if who == REPLICAS {
                at = before;
                continue;
            }
            way.push(match event {
                Event::Hears { message, .. } => {
                    let words = Words::Consensus(self.automaton.said(message).clone());
                    format!("{who} hears {}", describe(&words))
                }
                Event::Reaches(peer) => format!("{who} reaches {peer}"),
                Event::Timer => format!("{who} times out"),
                Event::Restart => format!("{who} starts again"),
                Event::Forget => format!("{who} starts again without its journal"),
            });
            at = before;
        }
        way.reverse();
        way
    }
}

/// Whether anybody can enter the next view.
fn leads_on(view: View, heard: &Heard) -> bool {
    heard.certified.contains_key(&view) || heard.timed_out.iter().any(|tc| tc.view == view)
}
