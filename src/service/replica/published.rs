//! What the control task publishes of the state for the API: whose receipts count, what operators have ordered, and what
//! became of their requests. It decides nothing.
//!
//! Invariant: what is published follows the committed blocks, never what is only queued.

use std::sync::Arc;
use tokio::sync::watch;

use crate::{
    consensus::{Block, Command},
    execute::feed::Feed,
    knowledge::{
        change::Change,
        fold::{EvidenceLog, Operations, State},
    },
    service::{
        api::{
            AgentApi, DocumentKind, Members, RefusedDocuments, RequestLog, Stage, Submissions, Waiting,
            queues,
        },
        metrics::receipt_refusal,
    },
    types::Height,
};

/// The senders.
#[derive(Debug)]
pub(super) struct Published {
    operations: watch::Sender<Arc<Operations>>,
    requests: watch::Sender<Arc<RequestLog>>,
    evidence: watch::Sender<Arc<EvidenceLog>>,
    refused: RefusedDocuments,
    waiting: Waiting,
}

impl Published {
    /// Publishes the state before the first block; the API that reads it, and what the API submits.
    pub(super) fn new(state: &State, feed: watch::Receiver<Arc<Feed>>) -> (Self, AgentApi, Submissions) {
        let (operations, seen) = watch::channel(Arc::new(state.operations().clone()));
        let (requests, outcomes) = watch::channel(Arc::default());
        let (evidence, proven) = watch::channel(Arc::new(state.evidence().clone()));
        let refused = RefusedDocuments::default();
        let (submitter, submissions) = queues(refused.clone());
        let members = Members {
            genesis: state.genesis().clone(),
            operators: state.operators().clone(),
            committee: state.committee().clone(),
        };
        let api = AgentApi {
            feed,
            members: Arc::new(members),
            operations: seen,
            requests: outcomes,
            evidence: proven,
            submitter,
            refused: refused.clone(),
        };
        let waiting = api.submitter.waiting().clone();
        (Self { operations, requests, evidence, refused, waiting }, api, submissions)
    }

    /// The counts of refused documents.
    pub(super) const fn refused(&self) -> &RefusedDocuments {
        &self.refused
    }

    /// Publishes what a block changed.
    pub(super) fn folded(&self, changes: &[Change], block: &Block, state: &State) {
        let height = block.height();
        for change in changes {
            match change {
                Change::ReceiptRefused { why, .. } => {
                    self.refused.count(DocumentKind::Receipt, Stage::Fold, receipt_refusal(why));
                }
                Change::OperatorRequestRefused { why, .. } => {
                    self.refused.count(DocumentKind::OperatorRequest, Stage::Fold, why.as_str());
                    self.operations(state);
                    self.note(change, height);
                }
                Change::OperatorRequestLogged { .. } => {
                    self.operations(state);
                    self.note(change, height);
                }
                // Its counter is used from now on.
                Change::ReceiptLogged { .. } => self.operations(state),
                Change::EvidenceLogged(_) => self.evidence(state),
                Change::TimeMoved(_)
                | Change::WindowClosed(_)
                | Change::Gap { .. }
                | Change::Found { .. }
                | Change::PlanLogged(_)
                | Change::PlanRefused { .. }
                | Change::HeadDerived(_)
                | Change::EffectSettled { .. }
                | Change::ReportRefused { .. }
                | Change::EvidenceRefused { .. }
                | Change::Malformed => {}
            }
        }
        // Whoever finds its place free finds the outcome, too.
        self.waiting.ordered(block.payload().commands().iter().map(Command::digest));
    }

    /// Publishes a state that others gave or the journal began with.
    pub(super) fn restored(&self, state: &State) {
        self.operations(state);
        self.evidence(state);
        self.requests
            .send_if_modified(|log| Arc::make_mut(log).restore(state.operations(), state.operators()));
        self.waiting.clear();
    }

    /// Publishes what operators have ordered. The bindings come before a request's outcome: whoever hears that an agent's
    /// key is bound may send its receipts.
    fn operations(&self, state: &State) {
        if **self.operations.borrow() != *state.operations() {
            self.operations.send_replace(Arc::new(state.operations().clone()));
        }
    }

    /// Publishes what is proven of replicas.
    fn evidence(&self, state: &State) {
        self.evidence.send_replace(Arc::new(state.evidence().clone()));
    }

    fn note(&self, change: &Change, height: Height) {
        self.requests.send_if_modified(|log| Arc::make_mut(log).note(change, height));
    }
}
