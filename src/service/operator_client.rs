//! What an operator's command does with the replicas: it hands a signed request to all of them, hears what became of it,
//! and waits for the certified heads that tell of it.
//!
//! It decides nothing and trusts no single replica: an outcome is believed when f+1 replicas say the same (or all that
//! were given, when they are fewer), and a head only under the root. Invariant: every wait ends at the deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::{task::JoinSet, time::Instant};

use super::{
    api::{HeadMark, Outcome, RequestOutcome},
    http_client::{Answer, Bounds, HttpClient},
};
use crate::{
    knowledge::{certified::Certified, head::Head, root::VerifiedRoot},
    types::{Digest, Envelope, Shard, from_strict_json},
};

/// How long one replica may take for one answer, beyond the seconds that it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a replica waits for news before it answers that there is none, in seconds.
const WAIT_SECONDS: u64 = 2;
/// Between two rounds of questions, so that replicas that answer at once are not asked without a pause.
const PAUSE: Duration = Duration::from_millis(200);
/// The heads of a hundred shards of the largest size; one root or outcome is far smaller.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The replicas that an operator speaks to.
#[derive(Clone, Debug)]
pub struct OperatorClient {
    client: HttpClient,
    replicas: Arc<[String]>,
    deadline: Instant,
}

/// What a replica said to a request that it was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// It has queued it, or knows it already.
    Taken,
    /// It refused it, with its words.
    Refused(String),
    /// It did not answer, or could not take it now.
    Unanswered(String),
}

/// Why a request's end is not known.
#[derive(Debug, thiserror::Error)]
pub enum OperatorClientError {
    /// No replica serves a root, or not all the same one.
    #[error("{0}; pin the root with --root")]
    Root(String),
    /// No replica took the request.
    #[error("no replica took the request: {}", .0.join("; "))]
    Unanswered(Vec<String>),
    /// The replicas that answered refused it.
    #[error("the request is refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// Replicas took it, and it was not committed in time.
    #[error(
        "{taken} of {given} replicas took the request, but it was not committed in time; it still may be"
    )]
    NotCommitted {
        /// How many replicas took it.
        taken: usize,
        /// How many were given.
        given: usize,
    },
    /// It is committed, and no certified head tells of it in time.
    #[error("the request is committed, but no quorum has signed a head that tells of it in time")]
    NoHead,
}

/// A request that took effect.
#[derive(Clone, Debug)]
pub struct Committed {
    /// What the replicas said of it.
    pub outcome: RequestOutcome,
    /// The heads that its command derived.
    pub marks: Vec<HeadMark>,
    /// How many replicas said so when it was believed.
    pub said_by: usize,
}

impl OperatorClient {
    /// A client for these replicas that gives up after so long.
    #[must_use]
    pub fn new(client: HttpClient, replicas: &[String], patience: Duration) -> Self {
        // Named twice, a replica still has one voice.
        let replicas: BTreeSet<String> =
            replicas.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Self { client, replicas: replicas.into_iter().collect(), deadline: Instant::now() + patience }
    }

    /// The first root as the replicas serve it: all that answer must serve the same one.
    ///
    /// # Errors
    /// [`OperatorClientError::Root`].
    pub async fn root(&self) -> Result<VerifiedRoot, OperatorClientError> {
        let mut found: Option<VerifiedRoot> = None;
        let mut troubles = Vec::new();
        for (url, answer) in self.ask_all("/v1/roots/1", 0).await {
            match answer.and_then(|answer| {
                VerifiedRoot::first(&answer.body).map_err(|error| format!("{url}: {error}"))
            }) {
                Ok(root) if found.as_ref().is_some_and(|other| other.root() != root.root()) => {
                    return Err(OperatorClientError::Root("the replicas serve different roots".to_owned()));
                }
                Ok(root) => found = Some(root),
                Err(trouble) => troubles.push(trouble),
            }
        }
        found.ok_or_else(|| OperatorClientError::Root(format!("no root: {}", troubles.join("; "))))
    }

    /// Hands the request to all replicas.
    ///
    /// # Errors
    /// [`OperatorClientError::Refused`] and [`OperatorClientError::Unanswered`] when none has taken it.
    pub async fn hand_over(&self, envelope: &Envelope) -> Result<usize, OperatorClientError> {
        let body = envelope.to_json();
        let mut tasks = JoinSet::new();
        for url in self.replicas.iter() {
            let (client, url, body) = (self.client.clone(), url.clone(), body.clone());
            tasks.spawn(async move { hand(&client, &url, body).await });
        }
        let (mut taken, mut refused, mut unanswered) = (0, Vec::new(), Vec::new());
        for handed in tasks.join_all().await {
            match handed {
                Handed::Taken => taken += 1,
                Handed::Refused(why) => refused.push(why),
                Handed::Unanswered(why) => unanswered.push(why),
            }
        }
        match (taken, refused.is_empty()) {
            (0, true) => Err(OperatorClientError::Unanswered(unanswered)),
            (0, false) => Err(OperatorClientError::Refused(distinct(refused))),
            (taken, _) => Ok(taken),
        }
    }

    /// Waits until enough replicas say the same of a request that this many have taken.
    ///
    /// # Errors
    /// [`OperatorClientError::Refused`] and [`OperatorClientError::NotCommitted`].
    pub async fn await_outcome(
        &self,
        digest: Digest,
        root: &VerifiedRoot,
        taken: usize,
    ) -> Result<Committed, OperatorClientError> {
        let given = self.replicas.len();
        let enough = root.committee().size().one_honest().min(given);
        loop {
            let path = format!("/v1/operator-requests/{digest}?wait={WAIT_SECONDS}");
            let answers = self.ask_all(&path, WAIT_SECONDS).await;
            let said = answers.into_iter().filter_map(|(_, answer)| {
                let said: RequestOutcome = serde_json::from_slice(&answer.ok()?.body).ok()?;
                (said.digest == digest).then_some(said)
            });
            let said: Vec<RequestOutcome> = said.collect();
            let agreed = said.iter().find_map(|one| {
                let times = said.iter().filter(|other| *other == one).count();
                (times >= enough).then(|| (one.clone(), times))
            });
            if let Some((outcome, said_by)) = agreed {
                return match &outcome.outcome {
                    Outcome::Committed { heads, .. } => {
                        Ok(Committed { marks: heads.clone(), outcome, said_by })
                    }
                    Outcome::Refused { why, .. } => Err(OperatorClientError::Refused(vec![why.clone()])),
                };
            }
            if Instant::now() >= self.deadline {
                return Err(OperatorClientError::NotCommitted { taken, given });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for certified heads that are these or newer; one a shard. Without marks, for any heads.
    ///
    /// # Errors
    /// [`OperatorClientError::NoHead`].
    pub async fn await_heads(
        &self,
        marks: &[HeadMark],
        root: &VerifiedRoot,
    ) -> Result<Vec<Certified<Head>>, OperatorClientError> {
        let mut newest: BTreeMap<Shard, Certified<Head>> = BTreeMap::new();
        loop {
            for (_, answer) in self.ask_all("/v1/heads", 0).await {
                for head in answer.map(|answer| heads_in(&answer, root)).unwrap_or_default() {
                    let (shard, number) = (head.document().shard, head.document().number);
                    if newest.get(&shard).is_none_or(|known| known.document().number < number) {
                        newest.insert(shard, head);
                    }
                }
            }
            let told = |mark: &HeadMark| {
                newest.get(&mark.shard).is_some_and(|head| head.document().number >= mark.number)
            };
            if !newest.is_empty() && marks.iter().all(told) {
                let wanted = |head: &Certified<Head>| {
                    marks.is_empty() || marks.iter().any(|mark| mark.shard == head.document().shard)
                };
                return Ok(newest.into_values().filter(wanted).collect());
            }
            if Instant::now() >= self.deadline {
                return Err(OperatorClientError::NoHead);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks every replica at once; each answer with the replica's address, or why there is none.
    async fn ask_all(&self, path: &str, wait_seconds: u64) -> Vec<(String, Result<Answer, String>)> {
        let bounds =
            Bounds { timeout: ANSWER_TIMEOUT + Duration::from_secs(wait_seconds), body_bytes: ANSWER_BYTES };
        let mut tasks = JoinSet::new();
        for url in self.replicas.iter() {
            let (client, url, address) = (self.client.clone(), url.clone(), format!("{url}{path}"));
            tasks.spawn(async move {
                let answer = match client.get(&address, bounds).await {
                    Ok(answer) if answer.status.is_success() => Ok(answer),
                    Ok(answer) => Err(format!("{url}: {}", words_of(&answer))),
                    Err(error) => Err(error.to_string()),
                };
                (url, answer)
            });
        }
        tasks.join_all().await
    }
}

async fn hand(client: &HttpClient, url: &str, body: Vec<u8>) -> Handed {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: ANSWER_BYTES };
    let address = format!("{url}/v1/operator-requests");
    match client.post(&address, "application/json", body, bounds).await {
        Ok(answer) if answer.status.is_success() => Handed::Taken,
        Ok(answer) if answer.status.is_client_error() => Handed::Refused(words_of(&answer)),
        Ok(answer) => Handed::Unanswered(format!("{url}: {}", words_of(&answer))),
        Err(error) => Handed::Unanswered(error.to_string()),
    }
}

/// The error that an answer tells, or its status.
fn words_of(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Told {
        error: String,
    }
    let told = serde_json::from_slice::<Told>(&answer.body);
    told.map_or_else(|_| answer.status.to_string(), |told| told.error)
}

fn heads_in(answer: &Answer, root: &VerifiedRoot) -> Vec<Certified<Head>> {
    #[derive(Deserialize, serde::Serialize)]
    struct Heads {
        heads: Vec<Envelope>,
    }
    let Ok(Heads { heads }) = from_strict_json(&answer.body) else { return Vec::new() };
    let verified = heads.into_iter().map(|head| Certified::verify_envelope(head, root.committee()));
    verified.filter_map(Result::ok).collect()
}

/// Replicas that refuse usually say the same.
fn distinct(mut words: Vec<String>) -> Vec<String> {
    words.sort_unstable();
    words.dedup();
    words
}
