//! What people and agents hand in: operators' stops, resumes and key bindings, and agents' receipts for logged plans.
//!
//! It judges nothing. Invariant: each operator and each agent signs with rising counters, and all that it signed can be
//! handed in again, at any replica, at any later time.

use quorate::{
    consensus::Command as Ordered,
    knowledge::{
        command::{Command, EncodedCommand},
        operator_request::{All, OperatorRequest, Request, Selection, StopMode},
        plan::Plan,
        receipt::{Outcome, RECEIPT_TYPE, Receipt, Refusal},
        root::{Operator, Operators},
    },
    types::{Committee, Digest, Envelope, KeyId, Millis, ReplicaIndex, SecretKey, TargetId, UnixMillis, pae},
};
use std::collections::BTreeMap;

use crate::{
    rng::{Cause, Stream},
    telemetry::{TARGETS, owner},
};

/// How many operators there are; the last two act for one owner.
pub const OPERATORS: u8 = 3;

/// How many keys an agent may use for one target, the first one from the genesis.
const AGENT_KEYS: u8 = 4;

/// Somebody hands something in.
#[derive(Clone, Debug)]
pub struct Errand {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// At which replicas: the same bytes at each.
    pub at: Vec<ReplicaIndex>,
    /// What.
    pub what: Asked,
}

/// What is handed in.
#[derive(Clone, Debug)]
pub enum Asked {
    /// An operator signs a request that expires after so long.
    Request {
        /// Which operator.
        by: u8,
        /// What it asks for.
        request: Request,
        /// For how long it may be ordered.
        lasts: Millis,
        /// Whose stops it has not seen when it resumes something.
        overlooks: Option<u8>,
    },
    /// One of the requests and receipts so far again: its number among them, counted round.
    Again(u64),
}

/// The key of an operator.
#[must_use]
pub fn operator_key(place: u8) -> SecretKey {
    SecretKey::from_seed(&[200 + place; 32])
}

/// For which owner an operator acts.
#[must_use]
pub fn acts_for(place: u8) -> String {
    owner(usize::from(place.min(1)))
}

/// The name of an operator.
#[must_use]
pub fn operator_name(place: u8) -> String {
    format!("operator-{place}")
}

/// Points that no key may be: of order 1, 4 and 8, and second encodings of the first two.
pub const BAD_KEYS: [&str; 5] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// One of the keys that no replica may admit.
#[must_use]
pub fn bad_key(stream: &mut Stream) -> Digest {
    BAD_KEYS[stream.index(BAD_KEYS.len())].parse().expect("it is hexadecimal")
}

/// Whether the key is one that may be bound.
#[must_use]
pub fn is_admissible(key: Digest) -> bool {
    BAD_KEYS.iter().all(|bad| bad.parse() != Ok(key))
}

/// The operators of the simulated root.
#[must_use]
pub fn operators() -> Operators {
    let operator = |place| Operator {
        name: operator_name(place),
        key: operator_key(place).public(),
        owner: acts_for(place),
    };
    Operators::new((0..OPERATORS).map(operator), &[])
}

/// A key of the agent of a target; the first one stands in the genesis.
#[must_use]
pub fn agent_key(target: usize, number: u8) -> SecretKey {
    let target = u8::try_from(target).expect("there are few targets");
    SecretKey::from_seed(&[220 + target * AGENT_KEYS + number; 32])
}

/// The target at this place of the genesis.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(place: usize) -> TargetId {
    TargetId::new(TARGETS[place]).expect("a valid name")
}

/// What operators hand in over a run, in the order of time.
#[must_use]
pub fn draw(seed: u64, heal_ms: u64, window: Millis, everybody: &[ReplicaIndex]) -> Vec<Errand> {
    let mut stream = Stream::new(seed, Cause::Requests, 0);
    let mut moments: Vec<u64> =
        (0..stream.below(3 + heal_ms / (4 * window.as_millis()))).map(|_| stream.below(heal_ms)).collect();
    moments.sort_unstable();
    let mut errands: Vec<Errand> = moments
        .into_iter()
        .map(|at_ms| {
            let at = places(&mut stream, everybody);
            let what = if stream.chance(250) { Asked::Again(stream.next()) } else { asked(&mut stream) };
            Errand { at_ms, at, what }
        })
        .collect();
    // Most runs end with what is stopped resumed, so that plans must come again.
    if stream.chance(700) {
        for by in 0..2 {
            let request = Request::Resume { targets: Selection::All(All::All), seen: BTreeMap::new() };
            let what = Asked::Request { by, request, lasts: Millis::from_secs(3_600), overlooks: None };
            errands.push(Errand { at_ms: heal_ms - 1, at: everybody.to_vec(), what });
        }
    }
    errands
}

/// One to three replicas.
fn places(stream: &mut Stream, everybody: &[ReplicaIndex]) -> Vec<ReplicaIndex> {
    (0..stream.between(1, 3)).map(|_| everybody[stream.index(everybody.len())]).collect()
}

fn asked(stream: &mut Stream) -> Asked {
    let place = stream.index(TARGETS.len());
    let targets =
        if stream.chance(300) { Selection::All(All::All) } else { Selection::These([target(place)].into()) };
    let key = |number| agent_key(place, number).public();
    let number = u8::try_from(stream.below(AGENT_KEYS.into())).expect("there are few");
    let request = match stream.below(10) {
        0..=3 => {
            let mode = if stream.chance(700) { StopMode::Hold } else { StopMode::Revoked };
            Request::Stop { targets, mode }
        }
        4..=7 => Request::Resume { targets, seen: BTreeMap::new() },
        8 => {
            let replaced = u8::try_from(stream.below(AGENT_KEYS.into())).expect("there are few");
            let replaces = stream.chance(500).then(|| key(replaced).id());
            let good = Digest::from_bytes(key(number).to_bytes());
            let ed25519 = if stream.chance(250) { bad_key(stream) } else { good };
            Request::BindAgent { target: target(place), ed25519, replaces }
        }
        _ => Request::UnbindAgent { target: target(place), keyid: key(number).id() },
    };
    let lasts = Millis::new(if stream.chance(200) { stream.below(3_000) } else { 3_600_000 });
    let operator = |stream: &mut Stream| u8::try_from(stream.below(OPERATORS.into())).expect("there are few");
    let overlooks = stream.chance(200).then(|| operator(stream));
    Asked::Request { by: operator(stream), request, lasts, overlooks }
}

/// A receipt on its way.
#[derive(Clone, Debug)]
pub struct Answer {
    /// After how many milliseconds it is handed in.
    pub after_ms: u64,
    /// At which replicas.
    pub at: Vec<ReplicaIndex>,
    /// The signed envelope.
    pub envelope: Vec<u8>,
    /// The command that carries it.
    pub command: Ordered,
}

/// The desk at which operators and agents sign.
#[derive(Debug)]
pub struct Desk {
    stream: Stream,
    counters: BTreeMap<Digest, u64>,
    /// All that was signed, in order.
    signed: Vec<Ordered>,
}

impl Desk {
    /// Nobody has signed anything yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed, Cause::Requests, 1), counters: BTreeMap::new(), signed: Vec::new() }
    }

    fn next_counter(&mut self, key: &SecretKey) -> u64 {
        let counter = self.counters.entry(key.public().id()).or_default();
        *counter += 1;
        *counter
    }

    /// An operator signs a request; a resume with the stops that it has seen.
    pub fn request(
        &mut self,
        committee: &Committee,
        by: u8,
        mut request: Request,
        stops: BTreeMap<KeyId, u64>,
        expires_at: UnixMillis,
    ) -> (OperatorRequest, Ordered) {
        let key = operator_key(by);
        let (cluster, epoch, counter) = (committee.cluster(), committee.epoch(), self.next_counter(&key));
        if let Request::Resume { seen, .. } = &mut request {
            *seen = stops;
        }
        let request = OperatorRequest { v: 1, cluster, epoch, counter, expires_at, request };
        let envelope = request.sign(&key).to_json();
        (request, self.keep(Command::OperatorRequest { envelope }.encode()))
    }

    /// The command with this number, counted round; `None` before there is any.
    #[must_use]
    pub fn again(&self, number: u64) -> Option<Ordered> {
        let most = u64::try_from(self.signed.len()).ok().filter(|most| *most > 0)?;
        self.signed.get(usize::try_from(number % most).ok()?).cloned()
    }

    /// What an agent answers to a logged plan; sometimes nothing.
    pub fn receipt(
        &mut self,
        place: usize,
        plan: &Plan,
        digest: Digest,
        now: UnixMillis,
        everybody: &[ReplicaIndex],
    ) -> Option<Answer> {
        if self.stream.chance(200) {
            return None;
        }
        // Mostly the key of the genesis, sometimes one that may be bound or not.
        let number = if self.stream.chance(700) { 0 } else { self.stream.below(AGENT_KEYS.into()) };
        let key = agent_key(place, u8::try_from(number).expect("there are few"));
        let (outcome, after) = match self.stream.below(6) {
            0 => (Outcome::Refused { why: Refusal::TargetFailed }, plan.preconditions.state),
            1 => (Outcome::Reverted {}, plan.preconditions.state),
            2 => (Outcome::Noop {}, plan.desired),
            _ => (Outcome::Applied {}, plan.desired),
        };
        let receipt = Receipt {
            v: 1,
            cluster: plan.cluster,
            target: plan.target.clone(),
            seq: plan.seq,
            plan: digest,
            outcome,
            before: plan.preconditions.state,
            after,
            at: now,
            counter: self.next_counter(&key),
            refused_documents: 0,
            lost_receipts: 0,
        };
        let body = receipt.to_bytes();
        let signature = key.sign(&pae(RECEIPT_TYPE, &body));
        let envelope = Envelope::new(RECEIPT_TYPE, body, vec![(key.public().id(), signature)]).to_json();
        let command = self.keep(Command::Receipt { envelope: envelope.clone() }.encode());
        let (after_ms, at) = (self.stream.between(1, 4_000), places(&mut self.stream, everybody));
        Some(Answer { after_ms, at, envelope, command })
    }

    fn keep(&mut self, encoded: EncodedCommand) -> Ordered {
        let command = Ordered::new(encoded.head, encoded.body).expect("it is small");
        self.signed.push(command.clone());
        command
    }
}
