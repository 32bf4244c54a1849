//! The way of verified documents from the API to consensus: two bounded queues, and an answer to each submission.
//!
//! It verifies nothing. Invariant: whoever submits hears whether the command waits to be ordered, or that it does not.

use std::time::Duration;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{ApiError, DocumentKind, RefusedDocuments, Stage};
use crate::{
    consensus::{Rejected, Share},
    knowledge::command::Command,
};

/// How many documents of a kind wait for the control task before their senders are asked to come later: the task takes
/// them in milliseconds, unless it is reading the journal back.
const QUEUE: usize = 256;

/// How long a sender waits for the answer, below what agents and operators' commands wait for theirs.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A command on its way to be ordered.
#[derive(Debug)]
pub struct Submission {
    /// The command.
    pub command: Command,
    /// To which share of the room it counts.
    pub share: Share,
    /// Where to say whether it waits now.
    pub answer: oneshot::Sender<Result<(), Rejected>>,
}

/// The API's ends of the queues.
#[derive(Clone, Debug)]
pub struct Submitter {
    receipts: mpsc::Sender<Submission>,
    operator_requests: mpsc::Sender<Submission>,
    refused: RefusedDocuments,
}

/// The control task's ends of the queues.
#[derive(Debug)]
pub struct Submissions {
    receipts: mpsc::Receiver<Submission>,
    operator_requests: mpsc::Receiver<Submission>,
}

/// Makes the queues. What finds no room is counted here.
#[must_use]
pub fn queues(refused: RefusedDocuments) -> (Submitter, Submissions) {
    let (receipt_sender, receipts) = mpsc::channel(QUEUE);
    let (request_sender, operator_requests) = mpsc::channel(QUEUE);
    let submitter = Submitter { receipts: receipt_sender, operator_requests: request_sender, refused };
    (submitter, Submissions { receipts, operator_requests })
}

impl Submissions {
    /// The next submission: operators' requests first, however many receipts wait. `None` when nobody is left who
    /// could submit. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Submission> {
        tokio::select! {
            biased;
            Some(request) = self.operator_requests.recv() => Some(request),
            Some(receipt) = self.receipts.recv() => Some(receipt),
            else => None,
        }
    }
}

impl Submitter {
    /// Hands the command over and waits until consensus has taken it in.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when there is no room for it now, [`ApiError::Stopping`] when the replica ends.
    pub(super) async fn submit(&self, kind: DocumentKind, command: Command) -> Result<(), ApiError> {
        let (queue, share) = match kind {
            DocumentKind::Receipt => (&self.receipts, Share::Ordinary),
            DocumentKind::OperatorRequest => (&self.operator_requests, Share::Urgent),
        };
        let busy = |reason| {
            self.refused.count(kind, Stage::Api, reason);
            ApiError::Busy
        };
        let (answer, taken) = oneshot::channel();
        queue.try_send(Submission { command, share, answer }).map_err(|error| match error {
            TrySendError::Full(_) => busy("queue_full"),
            TrySendError::Closed(_) => ApiError::Stopping,
        })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, taken).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(_))) => Err(busy("pending_full")),
            Ok(Err(_)) => Err(ApiError::Stopping),
            Err(_) => Err(busy("not_taken_in_time")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::{Submission, queues};
    use crate::{
        consensus::{Rejected, Share},
        knowledge::command::Command,
        service::api::{ApiError, DocumentKind, RefusedDocuments},
    };

    const RECEIPT: Command = Command::Receipt { envelope: Vec::new() };
    const REQUEST: Command = Command::OperatorRequest { envelope: Vec::new() };

    #[tokio::test]
    async fn an_operators_request_overtakes_receipts_and_has_room_of_its_own() {
        let refused = RefusedDocuments::default();
        let (submitter, mut submissions) = queues(refused.clone());
        let mut flood = JoinSet::new();
        for _ in 0..300 {
            let submitter = submitter.clone();
            flood.spawn(async move { submitter.submit(DocumentKind::Receipt, RECEIPT).await });
        }
        while refused.counts().is_empty() || refused.counts()[0].3 < 44 {
            tokio::task::yield_now().await;
        }
        let request = submitter.submit(DocumentKind::OperatorRequest, REQUEST);
        let control = async {
            let Submission { command, share, answer } = submissions.next().await.expect("it waits");
            assert_eq!((command, share), (REQUEST, Share::Urgent), "read before the receipts");
            answer.send(Ok(())).expect("somebody waits");
            for _ in 0..256 {
                let next = submissions.next().await.expect("it waits");
                assert_eq!(next.share, Share::Ordinary);
                next.answer.send(Err(Rejected::PendingFull)).expect("somebody waits");
            }
        };
        let (request, ()) = tokio::join!(request, control);
        assert_eq!(request, Ok(()));
        let receipts = flood.join_all().await;
        assert!(receipts.iter().all(|answer| *answer == Err(ApiError::Busy)));
        let counts: Vec<_> = refused.counts().into_iter().map(|(_, _, why, count)| (why, count)).collect();
        assert_eq!(counts, [("pending_full", 256), ("queue_full", 44)], "what is refused is counted");
    }

    #[tokio::test]
    async fn a_submission_that_nobody_takes_is_told_so() {
        let (submitter, submissions) = queues(RefusedDocuments::default());
        let unanswered = submitter.submit(DocumentKind::Receipt, RECEIPT).await;
        assert_eq!(unanswered, Err(ApiError::Busy));
        drop(submissions);
        let gone = submitter.submit(DocumentKind::OperatorRequest, REQUEST).await;
        assert_eq!(gone, Err(ApiError::Stopping));
    }
}
