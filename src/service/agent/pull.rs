//! Asking the replicas: heads, plans, and where receipts go. Every question goes to all of them at once, and
//! an answer counts only once per replica.
//!
//! Invariant: no result is given before f + 1 distinct replicas have answered validly, so that at least one
//! honest replica is among them; a replica that lies, stalls or is gone changes nothing beyond that.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

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
    /// What failed verification, with its sender.
    pub(super) refused: Vec<(String, String)>,
    /// Replicas without a usable answer, with what went wrong.
    pub(super) failed: Vec<(String, String)>,
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
    /// answered. `admit` says which are accepted, which refused (with the reason) and which are no news.
    pub(super) async fn heads<T>(
        &self,
        shard: Shard,
        after: HeadNumber,
        wait_seconds: u64,
        mut admit: impl FnMut(&[u8]) -> Result<Option<T>, String>,
    ) -> Round<T> {
        let path = format!("/v1/heads?shard={shard}&after={after}&wait={wait_seconds}");
        let timeout = Duration::from_secs(wait_seconds) + ANSWER_TIMEOUT;
        let mut asked = self.ask(&path, Bounds { timeout, body_bytes: HEADS_BYTES });
        let mut round = Round::default();
        while round.answered < self.needed
            && let Some((address, answer)) = next(&mut asked).await
        {
            let heads = match answer.and_then(|answer| parse::<Heads>(&answer)) {
                Ok(Heads { heads }) if heads.len() <= 1 => heads,
                Ok(_) => {
                    round.refused.push((address, "more than one head of one shard".to_owned()));
                    continue;
                }
                Err(error) => {
                    round.failed.push((address, error));
                    continue;
                }
            };
            match heads.first().map_or(Ok(None), |head| admit(&head.to_json())) {
                Ok(head) => {
                    round.answered += 1;
                    round.accepted.extend(head);
                }
                Err(why) => round.refused.push((address, why)),
            }
        }
        round
    }

    /// Asks for the plan with this sequence number and digest, until one replica has sent one that `verify`
    /// accepts.
    pub(super) async fn plan<T>(
        &self,
        target: &TargetId,
        seq: Cycle,
        digest: Digest,
        mut verify: impl FnMut(&[u8]) -> Result<T, String>,
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
                Err(error) => {
                    round.failed.push((address, error));
                    continue;
                }
            };
            round.answered += 1;
            let wanted = plans.iter().find(|plan| Digest::of(plan.unverified_body()) == digest);
            match wanted.map(|plan| verify(&plan.to_json())) {
                Some(Ok(plan)) => round.accepted.push(plan),
                Some(Err(why)) => round.refused.push((address, why)),
                None => round.failed.push((address, format!("it does not have plan {seq}"))),
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
                (address.to_string(), answer.map_err(|error| error.to_string()))
            });
        }
        let mut round = Round::default();
        while round.answered < self.needed
            && let Some((address, answer)) = next(&mut asked).await
        {
            match answer {
                Ok(answer) if matches!(answer.status, StatusCode::OK | StatusCode::ACCEPTED) => {
                    round.answered += 1;
                }
                Ok(answer) => round.failed.push((address, said(&answer))),
                Err(error) => round.failed.push((address, error)),
            }
        }
        round
    }

    fn ask(&self, path: &str, bounds: Bounds) -> JoinSet<(String, Result<Answer, String>)> {
        let mut asked = JoinSet::new();
        for address in &self.addresses {
            let (client, address, url) =
                (self.client.clone(), Arc::clone(address), format!("{address}{path}"));
            asked.spawn(async move {
                let answer = client.get(&url, bounds).await;
                (address.to_string(), answer.map_err(|error| error.to_string()))
            });
        }
        asked
    }
}

/// How long an answer may take beyond the wait that was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A replica that certified the head has the plan, or will in a moment.
const PLAN_WAIT_SECONDS: u64 = 1;

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { accepted: Vec::new(), answered: 0, refused: Vec::new(), failed: Vec::new() }
    }
}

async fn next(
    asked: &mut JoinSet<(String, Result<Answer, String>)>,
) -> Option<(String, Result<Answer, String>)> {
    match asked.join_next().await? {
        Ok(answer) => Some(answer),
        Err(error) => Some(("a replica".to_owned(), Err(error.to_string()))),
    }
}

fn parse<T: serde::de::DeserializeOwned + Serialize>(answer: &Answer) -> Result<T, String> {
    if answer.status == StatusCode::OK {
        from_strict_json(&answer.body).map_err(|error| error.to_string())
    } else {
        Err(said(answer))
    }
}

fn said(answer: &Answer) -> String {
    let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
    format!("{}: {text}", answer.status)
}
