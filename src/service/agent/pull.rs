//! Asking the replicas: heads, plans, and where receipts go. Every question goes to all of them at once, and
//! an answer counts only once per replica and round.
//!
//! Invariant: no result is given before f + 1 distinct replicas have answered validly, so that at least one
//! honest replica is among them; a replica that lies, stalls or is gone changes nothing beyond that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::fault::{Fault, FaultKind};
use crate::{
    service::http_client::{Answer, Bounds, HttpClient},
    types::{
        CommitteeSize, Cycle, Digest, Envelope, HeadNumber, MAX_ENVELOPE_BYTES, Shard, TargetId,
        from_strict_json,
    },
};

/// One head per answer is asked for, with room for the JSON around it.
const HEADS_BYTES: usize = 2 * MAX_ENVELOPE_BYTES;
/// Replicas send at most [`PLANS_PER_ANSWER`](crate::execute::feed::PLANS_PER_ANSWER) plans in one answer.
const PLANS_BYTES: usize = crate::execute::feed::PLANS_PER_ANSWER * MAX_ENVELOPE_BYTES;
/// What a replica says to a receipt fits in a line.
const RECEIPT_ANSWER_BYTES: usize = 4 * 1024;

/// The replicas' addresses.
#[derive(Clone, Debug)]
pub struct Replicas {
    client: HttpClient,
    addresses: Vec<Arc<str>>,
    needed: usize,
}

/// Why these addresses are not enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicasError {
    /// One stands twice and would answer for two.
    #[error("the replica {0} is given twice")]
    Twice(String),
    /// Requests cannot go to an address.
    #[error("{0:?} is no address of a replica, such as https://10.0.0.1:8100")]
    Address(String),
    /// There are too few.
    #[error("{got} replicas are given; with this root at least {needed} distinct ones must answer")]
    TooFew {
        /// How many.
        got: usize,
        /// f + 1.
        needed: usize,
    },
}

/// What one round of questions brought.
#[derive(Debug)]
pub(super) struct Round<T> {
    /// What was accepted.
    pub(super) accepted: Vec<T>,
    /// How many distinct replicas answered validly.
    pub(super) answered: usize,
    /// What was wrong with which replica's answer.
    pub(super) faults: Vec<(Arc<str>, Fault)>,
}

/// What the rules say to a replica's head.
#[derive(Debug)]
pub(super) enum Admission<T> {
    /// It is admitted.
    Admitted(T),
    /// It was news when the question was put, and others were faster.
    NoNews,
    /// It is not above what was asked for: the replica has answered, and has no news.
    Old(Fault),
    /// It does not pass; the replica has not answered.
    Refused(Fault),
}

/// Questions for heads that stand open: at most one with each replica, over as many rounds as its answer takes. So
/// a slow replica costs one connection, and is counted although others were enough.
#[derive(Debug, Default)]
pub(super) struct HeadQuestions {
    open: BTreeSet<Arc<str>>,
    answers: JoinSet<HeadAnswer>,
}

#[derive(Debug)]
struct HeadAnswer {
    replica: Arc<str>,
    /// The number that was asked for something above of.
    after: HeadNumber,
    answer: Result<Answer, Fault>,
}

impl HeadQuestions {
    async fn next(&mut self) -> Option<HeadAnswer> {
        match self.answers.join_next().await? {
            Ok(answer) => {
                self.open.remove(&answer.replica);
                Some(answer)
            }
            // A task panicked or was aborted, which none does; it is not known whose it was.
            Err(_) => {
                *self = Self::default();
                None
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Heads {
    heads: Vec<Envelope>,
}

#[derive(Serialize, Deserialize)]
struct Plans {
    plans: Vec<Envelope>,
}

impl Replicas {
    /// Checks the addresses: distinct, and enough for the committee.
    ///
    /// # Errors
    /// [`ReplicasError`] says what is wrong with them.
    pub fn new(
        client: HttpClient,
        addresses: &[String],
        committee: CommitteeSize,
    ) -> Result<Self, ReplicasError> {
        let mut distinct = BTreeSet::new();
        let mut checked = Vec::new();
        for address in addresses {
            let trimmed = address.trim_end_matches('/');
            if client.check(trimmed).is_err() {
                return Err(ReplicasError::Address(address.clone()));
            }
            if !distinct.insert(trimmed) {
                return Err(ReplicasError::Twice(address.clone()));
            }
            checked.push(Arc::from(trimmed));
        }
        let needed = committee.one_honest();
        if checked.len() < needed {
            return Err(ReplicasError::TooFew { got: checked.len(), needed });
        }
        Ok(Self { client, addresses: checked, needed })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are none, which no committee allows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// How many must answer: f + 1.
    #[must_use]
    pub const fn needed(&self) -> usize {
        self.needed
    }

    /// Asks for heads above a number, each replica waiting `wait_seconds` for one, until enough have
    /// answered. `admit` says what the rules make of a head that was sent when this number was asked for.
    pub(super) async fn heads<T>(
        &self,
        questions: &mut HeadQuestions,
        shard: Shard,
        after: HeadNumber,
        wait_seconds: u64,
        mut admit: impl FnMut(&[u8], HeadNumber) -> Admission<T>,
    ) -> Round<T> {
        for replica in &self.addresses {
            self.ask_head(questions, replica, shard, after, wait_seconds);
        }
        let mut round = Round::default();
        while round.answered < self.needed
            && let Some(HeadAnswer { replica, after: asked, answer }) = questions.next().await
        {
            let head = answer.and_then(|answer| parse::<Heads>(&answer)).and_then(only_head);
            match head.map(|head| head.map_or(Admission::NoNews, |head| admit(&head.to_json(), asked))) {
                Ok(Admission::Admitted(head)) => {
                    round.answered += 1;
                    round.accepted.push(head);
                }
                // It answers an earlier round's question; this round's is still to be put.
                Ok(Admission::NoNews) if asked < after => {
                    self.ask_head(questions, &replica, shard, after, wait_seconds);
                }
                Ok(Admission::NoNews) => round.answered += 1,
                Ok(Admission::Old(fault)) => {
                    round.answered += 1;
                    round.faults.push((replica, fault));
                }
                Ok(Admission::Refused(fault)) | Err(fault) => round.faults.push((replica, fault)),
            }
        }
        round
    }

    /// Puts the question, unless an earlier one stands open.
    fn ask_head(
        &self,
        questions: &mut HeadQuestions,
        replica: &Arc<str>,
        shard: Shard,
        after: HeadNumber,
        wait_seconds: u64,
    ) {
        if !questions.open.insert(Arc::clone(replica)) {
            return;
        }
        let (client, replica) = (self.client.clone(), Arc::clone(replica));
        let url = format!("{replica}/v1/heads?shard={shard}&after={after}&wait={wait_seconds}");
        let timeout = Duration::from_secs(wait_seconds) + ANSWER_TIMEOUT;
        questions.answers.spawn(async move {
            let answer = client.get(&url, Bounds { timeout, body_bytes: HEADS_BYTES }).await;
            HeadAnswer { replica, after, answer: answer.map_err(|error| Fault::of_http(&error)) }
        });
    }

    /// Asks for the plan with this sequence number and digest, until one replica has sent one that `verify`
    /// accepts.
    pub(super) async fn plan<T>(
        &self,
        target: &TargetId,
        seq: Cycle,
        digest: Digest,
        mut verify: impl FnMut(&[u8]) -> Result<T, Fault>,
    ) -> Round<T> {
        let after = seq.previous().unwrap_or_default();
        let path = format!("/v1/plans?target={target}&after={after}&wait={PLAN_WAIT_SECONDS}");
        let timeout = Duration::from_secs(PLAN_WAIT_SECONDS) + ANSWER_TIMEOUT;
        let mut asked = self.ask(&path, Bounds { timeout, body_bytes: PLANS_BYTES });
        let mut round = Round::default();
        while round.accepted.is_empty()
            && let Some((address, answer)) = next(&mut asked).await
        {
            let plans = match answer.and_then(|answer| parse::<Plans>(&answer)) {
                Ok(Plans { plans }) => plans,
                Err(fault) => {
                    round.faults.push((address, fault));
                    continue;
                }
            };
            round.answered += 1;
            let wanted = plans.iter().find(|plan| Digest::of(plan.unverified_body()) == digest);
            match wanted.map(|plan| verify(&plan.to_json())) {
                Some(Ok(plan)) => round.accepted.push(plan),
                Some(Err(fault)) => round.faults.push((address, fault)),
                None if plans.is_empty() => {
                    let why = format_args!("it does not have plan {seq}");
                    round.faults.push((address, Fault::new(FaultKind::NoPlan, why)));
                }
                None => {
                    let why = format_args!("it sends other plans than {seq}");
                    round.faults.push((address, Fault::new(FaultKind::Foreign, why)));
                }
            }
        }
        round
    }

    /// Sends a receipt to all, until enough have taken it.
    pub(super) async fn send_receipt(&self, receipt: &Envelope) -> Round<()> {
        let mut asked = JoinSet::new();
        let body = axum::body::Bytes::from(receipt.to_json());
        for address in &self.addresses {
            let (client, address, body) = (self.client.clone(), Arc::clone(address), body.clone());
            asked.spawn(async move {
                let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: RECEIPT_ANSWER_BYTES };
                let url = format!("{address}/v1/receipts");
                let answer = client.post(&url, "application/json", body, bounds).await;
                (address, answer.map_err(|error| Fault::of_http(&error)))
            });
        }
        let mut round = Round::default();
        while round.answered < self.needed
            && let Some((address, answer)) = next(&mut asked).await
        {
            match answer {
                // A conflict is an end as well: it was logged before, or can count no more.
                Ok(answer)
                    if matches!(
                        answer.status,
                        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::CONFLICT
                    ) =>
                {
                    round.answered += 1;
                }
                Ok(answer) => round.faults.push((address, said(&answer))),
                Err(fault) => round.faults.push((address, fault)),
            }
        }
        round
    }

    fn ask(&self, path: &str, bounds: Bounds) -> JoinSet<Asked> {
        let mut asked = JoinSet::new();
        for address in &self.addresses {
            let (client, address, url) =
                (self.client.clone(), Arc::clone(address), format!("{address}{path}"));
            asked.spawn(async move {
                let answer = client.get(&url, bounds).await;
                (address, answer.map_err(|error| Fault::of_http(&error)))
            });
        }
        asked
    }
}

/// How long an answer may take beyond the wait that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A replica that certified the head has the plan, or will in a moment.
const PLAN_WAIT_SECONDS: u64 = 1;

/// A replica and what came from it.
type Asked = (Arc<str>, Result<Answer, Fault>);

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { accepted: Vec::new(), answered: 0, faults: Vec::new() }
    }
}

async fn next(asked: &mut JoinSet<Asked>) -> Option<Asked> {
    match asked.join_next().await? {
        Ok(answer) => Some(answer),
        // The task panicked or was aborted: neither happens while the set is whole.
        Err(error) => Some((Arc::from("a replica"), Err(Fault::new(FaultKind::Unreachable, error)))),
    }
}

/// An answer about one shard holds one head or none.
fn only_head(Heads { mut heads }: Heads) -> Result<Option<Envelope>, Fault> {
    match heads.len() {
        0 | 1 => Ok(heads.pop()),
        _ => Err(Fault::new(FaultKind::Malformed, "more than one head of one shard")),
    }
}

fn parse<T: serde::de::DeserializeOwned + Serialize>(answer: &Answer) -> Result<T, Fault> {
    if answer.status == StatusCode::OK {
        from_strict_json(&answer.body).map_err(|error| Fault::new(FaultKind::Malformed, error))
    } else {
        Err(said(answer))
    }
}

fn said(answer: &Answer) -> Fault {
    let text = String::from_utf8_lossy(&answer.body);
    Fault::new(FaultKind::Status, format_args!("{}: {text}", answer.status))
}
