//! The agent's loop: pull, let the rules decide, act, send receipts.
//!
//! It decides nothing itself. Invariant: a step's state is on disk before the step touches the target or the
//! network.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    actuator::{Actuator, ActuatorError},
    event::{Event, TakenBack},
    fault::{Fault, FaultKind, Tally},
    pull::{Admission, HeadQuestions, Replicas, Round},
    state_file::{StateFile, StateFileError},
};
use crate::{
    execute::agent::{
        Account, AgentState, Aim, Attempt, Equivocation, Freshness, HeadRefusal, Idle, Progress, Settlement,
        Situation, Step, Trust, admit_head, judge, newest_head,
    },
    knowledge::{
        certified::{CertificateError, Certified},
        head::Head,
        plan::{DesiredState, Plan},
        receipt::{Outcome, Refusal},
    },
    service::{
        clock::{Stopwatch, wall_clock},
        durable::replace_file,
    },
    types::{Digest, Envelope, HeadNumber, Millis, SecretKey},
};

/// One judgement asks for at most a plan and a state before it is final; one more change may follow.
const STEPS_PER_ROUND: usize = 6;
/// The least time between two rounds of questions without news, so that neither a dead cluster nor replicas that
/// answer at once with nothing are asked without a pause.
const REST: Duration = Duration::from_millis(500);
/// How often the last receipt is sent before an agent ends that has seen a contradiction. A later start goes on.
const LAST_ATTEMPTS: usize = 5;

/// What an agent is given.
#[derive(Debug)]
pub struct AgentSettings {
    /// What it trusts.
    pub trust: Trust,
    /// The key that signs its receipts.
    pub key: SecretKey,
    /// Whom it asks.
    pub replicas: Replicas,
    /// Where its memory is kept.
    pub state_folder: PathBuf,
    /// Where the documents are kept as they were received and sent; nowhere when absent.
    pub envelopes_folder: Option<PathBuf>,
}

/// Why an agent ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its memory cannot be used.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// A document could not be kept.
    #[error("cannot keep {}", path.display())]
    Envelopes {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certified documents contradict each other: more replicas than the committee bears are Byzantine.
    #[error(
        "the quorum signed two things under one number; both are kept in {} as contradiction {contradiction}, and \
         nothing more is applied",
        folder.display()
    )]
    Equivocation {
        /// Names the contradiction.
        contradiction: Digest,
        /// Where both documents are.
        folder: PathBuf,
    },
    /// Nobody listens to its events any more.
    #[error("nobody reads the agent's events")]
    Unheard,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent<A> {
    trust: Trust,
    key: SecretKey,
    replicas: Replicas,
    questions: HeadQuestions,
    file: StateFile,
    state_folder: PathBuf,
    envelopes_folder: Option<PathBuf>,
    actuator: A,
    events: mpsc::Sender<Event>,
    stopwatch: Stopwatch,
    state: AgentState,
    freshness: Freshness,
    head: Option<Certified<Head>>,
    tally: Tally,
    told: Told,
}

/// What was told last, so that only changes are told.
#[derive(Debug, Default)]
struct Told {
    idle: Option<Idle>,
    answered: Option<usize>,
    receipt_delayed: bool,
    trouble: Option<String>,
}

impl<A: Actuator> Agent<A> {
    /// Takes the state folder and keeps the root. Receipts that wait are signed with the given key, whichever key
    /// signed them first.
    ///
    /// # Errors
    /// [`AgentError`] when the state cannot be used.
    pub fn open(
        settings: AgentSettings,
        actuator: A,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, AgentError> {
        let AgentSettings { trust, key, replicas, state_folder, envelopes_folder } = settings;
        let (file, mut state) = StateFile::open(&state_folder, trust.root.committee(), &trust.target)?;
        if state.sign_outbox(&key) {
            file.save(&state)?;
        }
        if let Some(folder) = &envelopes_folder {
            std::fs::create_dir_all(folder)
                .map_err(|source| AgentError::Envelopes { path: folder.clone(), source })?;
        }
        let stopwatch = Stopwatch::start();
        let freshness = Freshness::start(state.head(), stopwatch.elapsed());
        let agent = Self {
            trust,
            key,
            replicas,
            questions: HeadQuestions::default(),
            file,
            state_folder,
            envelopes_folder,
            actuator,
            events,
            stopwatch,
            state,
            freshness,
            head: None,
            tally: Tally::default(),
            told: Told::default(),
        };
        agent.keep("root.json", agent.trust.root.envelope())?;
        if let Some(newest) = agent.state.outbox().last() {
            agent.keep("receipt.json", newest)?;
        }
        Ok(agent)
    }

    /// Runs until `stop` is ready. A change of the target that has begun is finished first.
    ///
    /// # Errors
    /// [`AgentError`] when it ends by itself, which an agent that has seen a contradiction does at every start.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        let mut stop = std::pin::pin!(stop);
        let (replicas, needed) = (self.replicas.len(), self.replicas.needed());
        self.tell(Event::Started { target: self.trust.target.clone(), replicas, needed }).await?;
        if self.state.equivocation().is_none() {
            match self.follow(stop.as_mut()).await {
                Err(AgentError::Equivocation { .. }) => {}
                ended => return ended,
            }
        }
        let Some(contradiction) = self.state.equivocation().map(Equivocation::digest) else { return Ok(()) };
        tokio::select! {
            () = &mut stop => {}
            told = self.tell_contradiction(contradiction) => told?,
        }
        Err(self.contradicted(contradiction))
    }

    /// Pull, act, account, until `stop` is ready.
    async fn follow(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), AgentError> {
        loop {
            self.settle(When::Later).await?;
            let round = Stopwatch::start();
            let news = tokio::select! {
                () = &mut stop => return Ok(()),
                pulled = self.pull() => pulled?,
            };
            self.act().await?;
            tokio::select! {
                () = &mut stop => return Ok(()),
                sent = self.send_receipts() => sent?,
            }
            if !news && Self::rest(round.elapsed(), stop.as_mut()).await {
                return Ok(());
            }
        }
    }

    /// What is left of a round's least time. Returns whether the agent was stopped meanwhile.
    async fn rest(took: Millis, stop: Pin<&mut impl Future<Output = ()>>) -> bool {
        let left = REST.saturating_sub(Duration::from_millis(took.as_millis()));
        tokio::time::timeout(left, stop).await.is_ok()
    }

    /// Asks for news of the head. Returns whether there were any.
    async fn pull(&mut self) -> Result<bool, AgentError> {
        let after = self.head.as_ref().map_or(HeadNumber::ZERO, |head| head.document().number);
        let mut contradiction = None;
        let (trust, mark, wait) = (&self.trust, self.state.head(), self.wait_seconds());
        let round = self.replicas.heads(&mut self.questions, trust.shard, after, wait, |envelope, asked| {
            match admit_head(trust, mark, envelope) {
                Ok(head) if head.document().number > after => Admission::Admitted(head),
                Ok(head) => no_news(head.document().number, asked),
                Err(HeadRefusal::GoneBack { got, .. }) => no_news(got, asked),
                Err(refusal) => {
                    let fault = fault_of(&refusal);
                    if let HeadRefusal::Equivocation { proof, .. } = refusal {
                        contradiction = Some(proof);
                    }
                    Admission::Refused(fault)
                }
            }
        });
        let round = round.await;
        self.tell_answers(&round).await?;
        if let Some(proof) = contradiction {
            return Err(self.stop(*proof).await?);
        }
        if round.answered < self.replicas.needed() {
            return Ok(false);
        }
        match newest_head(round.accepted) {
            Ok(Some(head)) => {
                self.take_head(head)?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(proof) => Err(self.stop(*proof).await?),
        }
    }

    /// A third of the time after which heads are stale, so that two answers may be lost before that.
    /// At least a second, so that idle replicas are not asked without a pause.
    fn wait_seconds(&self) -> u64 {
        (self.trust.stale_after.as_millis() / 3000).max(1)
    }

    fn take_head(&mut self, head: Certified<Head>) -> Result<(), AgentError> {
        self.freshness.notice(&head, self.stopwatch.elapsed());
        if self.state.raise_head(&head) {
            self.file.save(&self.state)?;
        }
        self.head = Some(head);
        Ok(())
    }

    /// Follows the rules' steps until there is nothing more to do.
    async fn act(&mut self) -> Result<(), AgentError> {
        let (mut plan, mut observed) = (None, None);
        for _ in 0..STEPS_PER_ROUND {
            let now = Situation {
                head: self.head.as_ref(),
                plan: plan.as_deref(),
                observed,
                freshness: self.freshness,
                monotonic: self.stopwatch.elapsed(),
                wall: wall_clock(),
            };
            match judge(&self.trust, &self.state, &now) {
                Step::Wait(idle) => return self.tell_idle(idle).await,
                Step::Fetch { seq, digest } => {
                    let committee = self.trust.root.committee();
                    let fetched = self.replicas.plan(&self.trust.target, seq, digest, |envelope| {
                        let verified = Certified::<Plan>::verify(envelope, committee);
                        verified
                            .map(|_| envelope.to_vec())
                            .map_err(|error| Fault::new(kind_of(&error), format_args!("plan: {error}")))
                    });
                    let mut fetched = fetched.await;
                    self.tell_faults(&fetched).await?;
                    plan = fetched.accepted.pop();
                    if plan.is_none() {
                        return Ok(());
                    }
                }
                Step::Read(of) => match self.read(&of).await? {
                    Some(state) => observed = Some(state),
                    None => return Ok(()),
                },
                Step::Discard(refusal) => {
                    self.state.count_refused_document();
                    return self.trouble(refusal.to_string()).await;
                }
                Step::Stop(proof) => return Err(self.stop(*proof).await?),
                Step::Apply { plan, before, aim } => return self.apply(*plan, before, aim).await,
                Step::AlreadyThere { plan, state } => {
                    self.tell_verified(&plan).await?;
                    self.tell(Event::AlreadyThere { seq: plan.document().seq, state }).await?;
                    return self.conclude(*plan, Outcome::Noop {}, state, state).await;
                }
                Step::AlreadyBack { plan, state } => {
                    return self.conclude_taken_back(*plan, state, state).await;
                }
                Step::Refuse { plan, why } => return self.refuse(*plan, why, observed).await,
            }
        }
        Ok(())
    }

    async fn refuse(
        &mut self,
        plan: Certified<Plan>,
        why: Refusal,
        observed: Option<DesiredState>,
    ) -> Result<(), AgentError> {
        // The receipt tells the target's state, so it waits until that can be read.
        let state = match observed {
            Some(state) => state,
            None => match self.read(&plan).await? {
                Some(state) => state,
                None => return Ok(()),
            },
        };
        let is_new = self.state.plan().is_none_or(|mark| mark.plan.digest() != plan.digest());
        if is_new {
            self.tell_verified(&plan).await?;
        }
        self.tell(Event::PlanRefused { seq: plan.document().seq, why }).await?;
        self.conclude(plan, Outcome::Refused { why }, state, state).await
    }

    async fn apply(
        &mut self,
        plan: Certified<Plan>,
        before: DesiredState,
        aim: Aim,
    ) -> Result<(), AgentError> {
        let (seq, state) = (plan.document().seq, aim.of(plan.document()));
        self.state.begin(plan.clone(), before, aim);
        self.file.save(&self.state)?;
        let attempt = self.state.plan().map_or(Attempt::FIRST, |mark| mark.attempt);
        let set = self.actuator.set(&plan, aim, attempt).await;
        // Only now: whoever listens may take long, and a plan that was judged long ago must not be set.
        if aim == Aim::Desired {
            self.tell_verified(&plan).await?;
        }
        let mut when = When::AtOnce;
        match set {
            Ok(()) => self.tell(Event::Applied { seq, before, state }).await?,
            Err(error) => {
                if let ActuatorError::Halfway { .. } = error {
                    when = When::Halfway;
                }
                self.tell(Event::TargetFailed { seq, error: chain(&error) }).await?;
            }
        }
        self.settle(when).await
    }

    /// Reads where the target landed that was being set, and concludes.
    async fn settle(&mut self, when: When) -> Result<(), AgentError> {
        let Some(mark) = self.state.plan() else { return Ok(()) };
        let Progress::Applying { before, aim } = mark.progress else { return Ok(()) };
        let plan = mark.plan.clone();
        let Some(after) = self.read(&plan).await? else { return Ok(()) };
        let seq = plan.document().seq;
        self.tell(Event::ReadBack { seq, state: after }).await?;
        match (Settlement::of(before, aim.of(plan.document()), after), aim) {
            (Settlement::Reached, Aim::Desired) => {
                self.conclude(plan, Outcome::Applied {}, before, after).await
            }
            (Settlement::Reached, Aim::Rollback) => self.conclude_taken_back(plan, before, after).await,
            (Settlement::Reached, Aim::Revert) => {
                let why = TakenBack::LandedElsewhere;
                self.tell(Event::TakenBack { seq, why, state: after }).await?;
                self.conclude(plan, Outcome::Reverted {}, before, after).await
            }
            (Settlement::Unchanged, Aim::Desired | Aim::Rollback) => {
                self.unchanged(plan, aim, when, after).await
            }
            (Settlement::Elsewhere, Aim::Desired) => match when {
                When::AtOnce | When::Halfway => Box::pin(self.apply(plan, before, Aim::Revert)).await,
                // Since this agent was killed, somebody else may have moved the target on: that is not undone.
                When::Later => self.give_up(plan, Refusal::Precondition, before, after).await,
            },
            (Settlement::Elsewhere, Aim::Rollback)
            | (Settlement::Unchanged | Settlement::Elsewhere, Aim::Revert) => {
                self.give_up(plan, Refusal::TargetFailed, before, after).await
            }
        }
    }

    async fn give_up(
        &mut self,
        plan: Certified<Plan>,
        why: Refusal,
        before: DesiredState,
        after: DesiredState,
    ) -> Result<(), AgentError> {
        self.tell(Event::PlanRefused { seq: plan.document().seq, why }).await?;
        self.conclude(plan, Outcome::Refused { why }, before, after).await
    }

    async fn unchanged(
        &mut self,
        plan: Certified<Plan>,
        aim: Aim,
        when: When,
        state: DesiredState,
    ) -> Result<(), AgentError> {
        match (when, aim) {
            (When::AtOnce, Aim::Desired) => self.give_up(plan, Refusal::TargetFailed, state, state).await,
            (When::Halfway, Aim::Desired) => {
                self.tell(Event::DoneInPart { seq: plan.document().seq }).await?;
                self.conclude(plan, Outcome::Partial {}, state, state).await
            }
            (When::Later, Aim::Desired)
            | (When::AtOnce | When::Halfway | When::Later, Aim::Rollback | Aim::Revert) => {
                self.state.left_unchanged();
                Ok(self.file.save(&self.state)?)
            }
        }
    }

    async fn conclude_taken_back(
        &mut self,
        plan: Certified<Plan>,
        before: DesiredState,
        after: DesiredState,
    ) -> Result<(), AgentError> {
        let (seq, why) = (plan.document().seq, TakenBack::Stale);
        self.tell(Event::TakenBack { seq, why, state: after }).await?;
        self.conclude_with(plan, Progress::RolledBack {}, Outcome::Reverted {}, before, after).await
    }

    async fn conclude(
        &mut self,
        plan: Certified<Plan>,
        outcome: Outcome,
        before: DesiredState,
        after: DesiredState,
    ) -> Result<(), AgentError> {
        self.conclude_with(plan, Progress::Done { outcome: outcome.clone() }, outcome, before, after).await
    }

    async fn conclude_with(
        &mut self,
        plan: Certified<Plan>,
        progress: Progress,
        outcome: Outcome,
        before: DesiredState,
        after: DesiredState,
    ) -> Result<(), AgentError> {
        let account = Account { outcome, before, after, at: wall_clock() };
        let lost_before = self.state.lost_receipts();
        let receipt = self.state.conclude(plan, progress, account, &self.key).clone();
        self.file.save(&self.state)?;
        self.keep("receipt.json", &receipt)?;
        let lost = self.state.lost_receipts();
        if lost == lost_before { Ok(()) } else { self.tell(Event::ReceiptLost { lost }).await }
    }

    /// Sends what waits, oldest first, until replicas take no more.
    async fn send_receipts(&mut self) -> Result<(), AgentError> {
        while let Some(receipt) = self.state.outbox().first() {
            let round = self.replicas.send_receipt(receipt).await;
            let (replicas, needed) = (round.answered, self.replicas.needed());
            if replicas < needed {
                let error = round.faults.into_iter().next().map_or_else(String::new, |(_, fault)| fault.why);
                if !std::mem::replace(&mut self.told.receipt_delayed, true) {
                    self.tell(Event::ReceiptDelayed { replicas, needed, error }).await?;
                }
                return Ok(());
            }
            self.told.receipt_delayed = false;
            self.state.receipt_accepted();
            self.file.save(&self.state)?;
            self.tell(Event::ReceiptSent { replicas }).await?;
        }
        Ok(())
    }

    async fn read(&mut self, plan: &Certified<Plan>) -> Result<Option<DesiredState>, AgentError> {
        match self.actuator.read(plan.document()).await {
            Ok(state) => Ok(Some(state)),
            Err(error) => {
                let (seq, error) = (plan.document().seq, chain(&error));
                if self.told.trouble.as_ref() != Some(&error) {
                    self.told.trouble = Some(error.clone());
                    self.tell(Event::TargetFailed { seq, error }).await?;
                }
                Ok(None)
            }
        }
    }

    /// Keeps both documents, accounts for the plan that was taken up, and ends. The error is the outer one only
    /// when even that failed.
    async fn stop(&mut self, proof: Equivocation) -> Result<AgentError, AgentError> {
        self.state.stop(proof.clone());
        self.file.save(&self.state)?;
        let contradiction = proof.digest();
        for (number, envelope) in [(1, &proof.kept), (2, &proof.other)] {
            keep_in(&self.state_folder, &format!("contradiction-{contradiction}-{number}.json"), envelope)?;
        }
        self.account_for_stop().await?;
        Ok(self.contradicted(contradiction))
    }

    /// The receipt that tells the quorum of the stop. What the target has been given stays noted as it was.
    async fn account_for_stop(&mut self) -> Result<(), AgentError> {
        let Some(mark) = self.state.plan().cloned() else { return Ok(()) };
        if let Progress::Applying { .. } = mark.progress {
            return Ok(());
        }
        let Some(state) = self.read(&mark.plan).await? else { return Ok(()) };
        let outcome = Outcome::Refused { why: Refusal::Contradiction };
        self.conclude_with(mark.plan, mark.progress, outcome, state, state).await
    }

    /// Tells of the stop, and gives the replicas the receipts that are due.
    async fn tell_contradiction(&mut self, contradiction: Digest) -> Result<(), AgentError> {
        self.tell(Event::Equivocation { contradiction, folder: self.state_folder.clone() }).await?;
        for _ in 0..LAST_ATTEMPTS {
            self.send_receipts().await?;
            if self.state.outbox().is_empty() {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }

    fn contradicted(&self, contradiction: Digest) -> AgentError {
        AgentError::Equivocation { contradiction, folder: self.state_folder.clone() }
    }

    fn keep(&self, name: &str, envelope: &Envelope) -> Result<(), AgentError> {
        self.envelopes_folder.as_ref().map_or(Ok(()), |folder| keep_in(folder, name, envelope))
    }

    async fn tell(&self, event: Event) -> Result<(), AgentError> {
        self.events.send(event).await.map_err(|_| AgentError::Unheard)
    }

    async fn tell_idle(&mut self, idle: Idle) -> Result<(), AgentError> {
        if self.told.idle.replace(idle) == Some(idle) {
            return Ok(());
        }
        self.tell(Event::Idle { why: idle.to_string() }).await
    }

    /// Tells that a plan passed, and keeps it with the head that names it.
    async fn tell_verified(&mut self, plan: &Certified<Plan>) -> Result<(), AgentError> {
        let Some(head) = &self.head else { return Ok(()) };
        self.keep("head.json", head.envelope())?;
        self.keep("plan.json", plan.envelope())?;
        self.tell(Event::Verified {
            seq: plan.document().seq,
            signers: plan.signers().to_vec(),
            replicas: self.trust.root.committee().size().replicas(),
            head: head.document().number,
        })
        .await
    }

    async fn tell_answers<T>(&mut self, round: &Round<T>) -> Result<(), AgentError> {
        self.tell_faults(round).await?;
        let (answered, needed) = (round.answered, self.replicas.needed());
        let enough = answered >= needed;
        let was_enough = self.told.answered.is_none_or(|told| told >= needed);
        if enough != was_enough || (!enough && self.told.answered != Some(answered)) {
            self.tell(Event::Answers { answered, needed }).await?;
        }
        self.told.answered = Some(answered);
        Ok(())
    }

    async fn tell_faults<T>(&mut self, round: &Round<T>) -> Result<(), AgentError> {
        for (replica, Fault { kind, why }) in &round.faults {
            let kind = *kind;
            if kind.is_sign_of_attack() {
                self.state.count_refused_document();
            }
            if let Some(count) = self.tally.count(replica, kind) {
                let (replica, why) = (replica.to_string(), why.clone());
                self.tell(Event::ReplicaFault { replica, kind, count, why }).await?;
            }
        }
        Ok(())
    }

    /// Tells of a refused document of the quorum's, unless it is the one told of last.
    async fn trouble(&mut self, why: String) -> Result<(), AgentError> {
        if self.told.trouble.as_ref() == Some(&why) {
            return Ok(());
        }
        self.told.trouble = Some(why.clone());
        self.tell(Event::DocumentRefused { why }).await
    }
}

/// A head that is not above what was admitted: the fault lies with a replica that was asked for something newer.
fn no_news<T>(got: HeadNumber, asked: HeadNumber) -> Admission<T> {
    if got > asked {
        return Admission::NoNews;
    }
    let why = format_args!("head {got}, where one above {asked} was asked for");
    Admission::Old(Fault::new(FaultKind::OldHead, why))
}

fn fault_of(refusal: &HeadRefusal) -> Fault {
    let kind = match refusal {
        HeadRefusal::NotCertified(error) => kind_of(error),
        HeadRefusal::OtherShard { .. } | HeadRefusal::NotNamed(_) => FaultKind::Foreign,
        HeadRefusal::GoneBack { .. } => FaultKind::OldHead,
        HeadRefusal::Equivocation { .. } => FaultKind::Contradiction,
    };
    Fault::new(kind, refusal)
}

const fn kind_of(error: &CertificateError) -> FaultKind {
    match error {
        CertificateError::Envelope(_) | CertificateError::Body(_) => FaultKind::Uncertified,
        CertificateError::WrongCluster { .. } | CertificateError::WrongEpoch { .. } => FaultKind::Foreign,
    }
}

/// Whether the target was set a moment ago, or by an earlier run or round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    AtOnce,
    /// A moment ago, and by its own words not all the way.
    Halfway,
    Later,
}

fn keep_in(folder: &Path, name: &str, envelope: &Envelope) -> Result<(), AgentError> {
    let path = folder.join(name);
    replace_file(&path, &envelope.to_json()).map_err(|source| AgentError::Envelopes { path, source })
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
