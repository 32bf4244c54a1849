//! What an operator's command does with the replicas: it reads what is in force, hands a signed request to all of them, hears
//! what became of it, and waits for the certified heads that tell of it.
//!
//! It decides nothing and trusts no single replica: what is in force and an outcome are believed when f+1 replicas say the
//! same (or all that were given, when they are fewer), a head only under the root, and a root that nobody pinned when more
//! than half of the given replicas serve it. Each replica is asked for itself, so one that is silent, slow or lies holds up
//! no answer that the others agree on. Invariant: every wait ends at the deadline.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::http::StatusCode;
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    api::{HeadMark, Outcome, RequestOutcome},
    http_client::{Answer, Bounds, HttpClient},
    status::{StatusSnapshot, StopStatus},
};
use crate::{
    knowledge::{certified::Certified, head::Head, operator_request::Selection, root::VerifiedRoot},
    types::{Digest, Envelope, Shard, TargetId, from_strict_json},
};

/// How long one replica may take for one answer, beyond the seconds that it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a replica waits for news before it answers that there is none, in seconds.
const WAIT_SECONDS: u64 = 2;
/// Between two questions to one replica, so that one that answers at once is not asked without a pause.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before a request is handed again to a replica that could not take it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
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
    /// It did not answer, or could not take it now; it is asked again.
    Unanswered(String),
}

/// Why a request's end is not known.
#[derive(Debug, thiserror::Error)]
pub enum OperatorClientError {
    /// No root is served by more than half of the replicas.
    #[error("{0}; pin the root with --root")]
    Root(String),
    /// Too few replicas say the same of what is in force.
    #[error("{needed} replicas do not say the same of what is stopped: {}", troubles.join("; "))]
    NoAgreement {
        /// How many must.
        needed: usize,
        /// Why some said nothing.
        troubles: Vec<String>,
    },
    /// A target that nobody knows.
    #[error("the replicas know no target {0}")]
    UnknownTarget(TargetId),
    /// No replica took the request.
    #[error("no replica took the request: {}", .0.join("; "))]
    Unanswered(Vec<String>),
    /// So many replicas refused it that it cannot be believed any more.
    #[error("the request is refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// Replicas took it, and it was not committed in time.
    #[error(
        "{taken} of {given} replicas took the request, but it was not committed in time; it still may be{}",
        others(said)
    )]
    NotCommitted {
        /// How many replicas took it.
        taken: usize,
        /// How many were given.
        given: usize,
        /// What the others said, each once.
        said: Vec<String>,
    },
    /// It is committed, and no certified head tells of it in time.
    #[error("the request is committed, but no quorum has signed a head that tells of it in time")]
    NoHead,
}

fn others(said: &[String]) -> String {
    if said.is_empty() { String::new() } else { format!("; others said: {}", said.join("; ")) }
}

/// A root that nobody pinned.
#[derive(Clone, Debug)]
pub struct ServedRoot {
    /// The root.
    pub root: VerifiedRoot,
    /// How many of the given replicas serve it: more than half.
    pub served_by: usize,
}

/// The stops that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Whose stops hold, of each target that was asked about.
    pub stops: BTreeMap<TargetId, Vec<StopStatus>>,
    /// How many replicas said so when it was believed.
    pub said_by: usize,
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

    /// How many replicas are asked.
    #[must_use]
    pub fn given(&self) -> usize {
        self.replicas.len()
    }

    /// How many replicas must say the same: one of them is honest, if that many were given.
    fn enough(&self, root: &VerifiedRoot) -> usize {
        root.committee().size().one_honest().min(self.given())
    }

    /// The first root that more than half of the given replicas serve. `progress` hears of those that do not answer.
    ///
    /// # Errors
    /// [`OperatorClientError::Root`], as soon as no root can get there.
    pub async fn root(
        &self,
        mut progress: impl FnMut(&str, &Handed),
    ) -> Result<ServedRoot, OperatorClientError> {
        let majority = self.given() / 2 + 1;
        let mut answers = self.ask("/v1/roots/1", 0);
        while answers.next(&mut progress).await {
            let roots = answers.read(|answer| VerifiedRoot::first(&answer.body).ok());
            if let Some((root, served_by)) = agreed(&roots, majority) {
                return Ok(ServedRoot { root: root.clone(), served_by });
            }
            let most = roots.iter().map(|one| times(one, &roots)).max().unwrap_or(0);
            if most + answers.open(roots.len()) < majority {
                break;
            }
        }
        let troubles = answers.troubles().join("; ");
        let why = format!("no root is served by more than half of the {} replicas given", self.given());
        Err(OperatorClientError::Root(if troubles.is_empty() { why } else { format!("{why}: {troubles}") }))
    }

    /// Whose stops of these targets hold. `progress` hears of the replicas that do not answer.
    ///
    /// # Errors
    /// [`OperatorClientError::NoAgreement`] and [`OperatorClientError::UnknownTarget`].
    pub async fn in_force(
        &self,
        targets: &Selection,
        root: &VerifiedRoot,
        mut progress: impl FnMut(&str, &Handed),
    ) -> Result<InForce, OperatorClientError> {
        let needed = self.enough(root);
        let mut answers = self.ask("/v1/status", 0);
        while answers.next(&mut progress).await {
            let said = answers.read(|answer| {
                let status = serde_json::from_slice(&answer.body).ok()?;
                Some(stops_in(status, targets))
            });
            let Some((stops, said_by)) = agreed(&said, needed) else {
                if said.len() + answers.open(said.len()) < needed {
                    break;
                }
                continue;
            };
            if let Selection::These(names) = targets
                && let Some(unknown) = names.iter().find(|name| !stops.contains_key(*name))
            {
                return Err(OperatorClientError::UnknownTarget(unknown.clone()));
            }
            return Ok(InForce { stops: stops.clone(), said_by });
        }
        Err(OperatorClientError::NoAgreement { needed, troubles: answers.troubles() })
    }

    /// Hands the request to all replicas, again to those that could not take it, until enough replicas say the same of
    /// its end. `progress` hears what each replica newly says to it.
    ///
    /// # Errors
    /// [`OperatorClientError::Refused`], [`OperatorClientError::Unanswered`] and [`OperatorClientError::NotCommitted`].
    pub async fn deliver(
        &self,
        envelope: &Envelope,
        digest: Digest,
        root: &VerifiedRoot,
        mut progress: impl FnMut(&str, &Handed),
    ) -> Result<Committed, OperatorClientError> {
        let enough = self.enough(root);
        let (tell, mut heard) = mpsc::channel(self.given().max(1));
        let mut tasks = JoinSet::new();
        for (place, url) in self.replicas.iter().enumerate() {
            let delivery = Delivery { client: self.client.clone(), url: url.clone(), digest };
            tasks.spawn(delivery.run(place, envelope.to_json(), tell.clone()));
        }
        drop(tell);
        let mut handed: BTreeMap<usize, Handed> = BTreeMap::new();
        let mut outcomes: BTreeMap<usize, RequestOutcome> = BTreeMap::new();
        while let Ok(Some((place, said))) = tokio::time::timeout_at(self.deadline, heard.recv()).await {
            match said {
                Said::Handed(said) if handed.get(&place) == Some(&said) => {}
                Said::Handed(said) => {
                    progress(&self.replicas[place], &said);
                    handed.insert(place, said);
                }
                Said::Outcome(outcome) => drop(outcomes.insert(place, outcome)),
            }
            let told: Vec<RequestOutcome> = outcomes.values().cloned().collect();
            if let Some((outcome, said_by)) = agreed(&told, enough) {
                return believed(outcome, said_by);
            }
            if told.len() == self.given()
                && let Some(known) = of_one_effect(&told, enough)
            {
                return known;
            }
            let refusals = words(&handed, |said| matches!(said, Handed::Refused(_)));
            let refused = handed.values().filter(|said| matches!(said, Handed::Refused(_))).count();
            if self.given() - refused < enough {
                return Err(OperatorClientError::Refused(refusals));
            }
        }
        let told: Vec<RequestOutcome> = outcomes.into_values().collect();
        if let Some(known) = of_one_effect(&told, enough) {
            return known;
        }
        let taken = handed.values().filter(|said| **said == Handed::Taken).count();
        let said = words(&handed, |_| true);
        if taken == 0 {
            return Err(OperatorClientError::Unanswered(said));
        }
        Err(OperatorClientError::NotCommitted { taken, given: self.given(), said })
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
        let mut answers = self.ask("/v1/heads", 0);
        while answers.next(|_, _| {}).await {
            let heads = answers.read(|answer| Some(heads_in(answer, root)));
            for head in heads.into_iter().flatten() {
                let (shard, number) = (head.document().shard, head.document().number);
                if newest.get(&shard).is_none_or(|known| known.document().number < number) {
                    newest.insert(shard, head);
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
        }
        Err(OperatorClientError::NoHead)
    }

    /// Asks every replica, over and over, each for itself.
    fn ask(&self, path: &str, wait_seconds: u64) -> Answers {
        let bounds =
            Bounds { timeout: ANSWER_TIMEOUT + Duration::from_secs(wait_seconds), body_bytes: ANSWER_BYTES };
        let (tell, heard) = mpsc::channel(self.given().max(1));
        let mut tasks = JoinSet::new();
        for (place, url) in self.replicas.iter().enumerate() {
            let (client, url, tell) = (self.client.clone(), url.clone(), tell.clone());
            let address = format!("{url}{path}");
            tasks.spawn(async move {
                while tell.send((place, get(&client, &url, &address, bounds).await)).await.is_ok() {
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        let (replicas, deadline) = (Arc::clone(&self.replicas), self.deadline);
        Answers { _tasks: tasks, heard, latest: BTreeMap::new(), replicas, deadline }
    }
}

/// All replicas' answers to one question. When it is dropped nobody is asked any more.
struct Answers {
    _tasks: JoinSet<()>,
    heard: mpsc::Receiver<(usize, Result<Answer, Handed>)>,
    latest: BTreeMap<usize, Result<Answer, Handed>>,
    replicas: Arc<[String]>,
    deadline: Instant,
}

impl Answers {
    /// Waits until some replica has answered or does not; `false` at the deadline. `progress` hears the first time that
    /// a replica does not.
    async fn next(&mut self, mut progress: impl FnMut(&str, &Handed)) -> bool {
        let heard = tokio::time::timeout_at(self.deadline, self.heard.recv()).await;
        let Ok(Some((place, answer))) = heard else { return false };
        if let (Err(trouble), None | Some(Ok(_))) = (&answer, self.latest.get(&place)) {
            progress(&self.replicas[place], trouble);
        }
        self.latest.insert(place, answer);
        true
    }

    /// What the replicas say by now, of those whose answer can be read.
    fn read<T>(&self, read: impl Fn(&Answer) -> Option<T>) -> Vec<T> {
        self.latest.values().filter_map(|said| read(said.as_ref().ok()?)).collect()
    }

    /// How many replicas may still say what can be read, when so many have.
    fn open(&self, read: usize) -> usize {
        let answered =
            self.latest.values().filter(|said| !matches!(said, Err(Handed::Unanswered(_)))).count();
        debug_assert!(read <= answered, "only what was answered can be read");
        self.replicas.len() - answered
    }

    fn troubles(&self) -> Vec<String> {
        let troubles = self.latest.values().filter_map(|said| match said {
            Err(Handed::Refused(why) | Handed::Unanswered(why)) => Some(why.clone()),
            Err(Handed::Taken) | Ok(_) => None,
        });
        distinct(troubles.collect())
    }
}

/// One request on its way to one replica.
struct Delivery {
    client: HttpClient,
    url: String,
    digest: Digest,
}

enum Said {
    Handed(Handed),
    Outcome(RequestOutcome),
}

impl Delivery {
    /// Hands it over until the replica has taken or refused it, then asks for its end, until somebody has heard enough.
    async fn run(self, place: usize, body: Vec<u8>, tell: mpsc::Sender<(usize, Said)>) {
        let mut pause = PAUSE;
        loop {
            let handed = hand(&self.client, &self.url, body.clone()).await;
            let again = matches!(handed, Handed::Unanswered(_));
            if tell.send((place, Said::Handed(handed))).await.is_err() {
                return;
            }
            if !again {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
        let timeout = ANSWER_TIMEOUT + Duration::from_secs(WAIT_SECONDS);
        let bounds = Bounds { timeout, body_bytes: ANSWER_BYTES };
        let address = format!("{}/v1/operator-requests/{}?wait={WAIT_SECONDS}", self.url, self.digest);
        loop {
            let answer = get(&self.client, &self.url, &address, bounds).await;
            let outcome = answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok());
            if let Some(outcome) = outcome.filter(|outcome: &RequestOutcome| outcome.digest == self.digest) {
                // Whoever has heard enough hears no more.
                let _ = tell.send((place, Said::Outcome(outcome))).await;
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn believed(outcome: &RequestOutcome, said_by: usize) -> Result<Committed, OperatorClientError> {
    match &outcome.outcome {
        Outcome::Committed { heads, .. } => {
            Ok(Committed { marks: heads.clone(), outcome: outcome.clone(), said_by })
        }
        Outcome::OrderedBefore { took_effect: true } => {
            Ok(Committed { marks: Vec::new(), outcome: outcome.clone(), said_by })
        }
        Outcome::Refused { why, .. } => Err(OperatorClientError::Refused(vec![why.clone()])),
        Outcome::OrderedBefore { took_effect: false } => {
            let why = "it was ordered before and refused; no replica here remembers why".to_owned();
            Err(OperatorClientError::Refused(vec![why]))
        }
    }
}

/// What enough replicas say of the request's effect, some with a block and some that remember less.
fn of_one_effect(told: &[RequestOutcome], enough: usize) -> Option<Result<Committed, OperatorClientError>> {
    let effects: Vec<bool> = told.iter().map(|told| told.outcome.took_effect()).collect();
    let (took_effect, said_by) = agreed(&effects, enough)?;
    let one = told.iter().find(|told| told.outcome.took_effect() == *took_effect)?;
    let outcome = Outcome::OrderedBefore { took_effect: *took_effect };
    Some(believed(&RequestOutcome { height: None, outcome, ..one.clone() }, said_by))
}

/// What at least `enough` say, and how many do.
fn agreed<T: PartialEq>(said: &[T], enough: usize) -> Option<(&T, usize)> {
    said.iter().map(|one| (one, times(one, said))).find(|(_, times)| *times >= enough)
}

fn times<T: PartialEq>(one: &T, said: &[T]) -> usize {
    said.iter().filter(|other| *other == one).count()
}

fn words(handed: &BTreeMap<usize, Handed>, wanted: impl Fn(&Handed) -> bool) -> Vec<String> {
    let words = handed.values().filter(|said| wanted(said)).filter_map(|said| match said {
        Handed::Taken => None,
        Handed::Refused(why) | Handed::Unanswered(why) => Some(why.clone()),
    });
    distinct(words.collect())
}

/// The stops of the targets that are asked about.
fn stops_in(status: StatusSnapshot, targets: &Selection) -> BTreeMap<TargetId, Vec<StopStatus>> {
    let wanted = |target: &TargetId| match targets {
        Selection::All(_) => true,
        Selection::These(names) => names.contains(target),
    };
    let lines = status.targets.into_iter().filter(|line| wanted(&line.target));
    lines.map(|line| (line.target, line.stopped_by)).collect()
}

async fn get(client: &HttpClient, url: &str, address: &str, bounds: Bounds) -> Result<Answer, Handed> {
    match client.get(address, bounds).await {
        Ok(answer) if answer.status.is_success() => Ok(answer),
        Ok(answer) => Err(failed(url, &answer)),
        Err(error) => Err(Handed::Unanswered(error.to_string())),
    }
}

/// A client's mistake stays one, whatever is tried again; what came too slowly or too often is none.
fn failed(url: &str, answer: &Answer) -> Handed {
    let words = words_of(answer);
    let passes = matches!(answer.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if answer.status.is_client_error() && !passes {
        Handed::Refused(words)
    } else {
        Handed::Unanswered(format!("{url}: {words}"))
    }
}

async fn hand(client: &HttpClient, url: &str, body: Vec<u8>) -> Handed {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: ANSWER_BYTES };
    let address = format!("{url}/v1/operator-requests");
    match client.post(&address, "application/json", body, bounds).await {
        Ok(answer) if answer.status.is_success() => Handed::Taken,
        Ok(answer) => failed(url, &answer),
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

#[cfg(test)]
mod tests;
