//! The way of verified documents from the API to consensus: two bounded queues, a bound for each signer, and an answer to
//! each submission.
//!
//! It verifies nothing. Invariant: whoever submits hears whether the command waits or was ordered, or that it does not.

use std::time::Duration;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    ApiError, DocumentKind, RefusedDocuments, Stage,
    waiting::{Admission, MOST_OF_ONE_SIGNER, Waiting},
};
use crate::{
    consensus::{self, Rejected, Share},
    knowledge::command::Command,
    types::KeyId,
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
    pub command: consensus::Command,
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
    waiting: Waiting,
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
    let submitter = Submitter {
        receipts: receipt_sender,
        operator_requests: request_sender,
        waiting: Waiting::default(),
        refused,
    };
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
    /// What waits here. Whoever folds blocks tells it what is ordered.
    #[must_use]
    pub const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Hands the command over and waits until consensus has taken it in.
    ///
    /// # Errors
    /// [`ApiError::Busy`] when there is no room for it now, [`ApiError::TooMany`] when its signer has no more,
    /// [`ApiError::Stopping`] when the replica ends.
    pub(super) async fn submit(
        &self,
        kind: DocumentKind,
        signer: KeyId,
        command: Command,
    ) -> Result<(), ApiError> {
        let (queue, share) = match kind {
            DocumentKind::Receipt => (&self.receipts, Share::Ordinary),
            DocumentKind::OperatorRequest => (&self.operator_requests, Share::Urgent),
        };
        let refused = |reason, error| {
            self.refused.count(kind, Stage::Api, reason);
            error
        };
        let encoded = command.encode();
        let command = consensus::Command::new(encoded.head, encoded.body)
            .map_err(|error| refused("malformed", ApiError::TooLarge(error.to_string())))?;
        let digest = command.digest();
        let is_new = match self.waiting.enter((kind, signer), digest) {
            Admission::Entered => true,
            Admission::Waits => false,
            Admission::Ordered => return Ok(()),
            Admission::Full => {
                let why = format!(
                    "{MOST_OF_ONE_SIGNER} documents of this key wait for their order here, as many as may of one; send it \
                     again when some are ordered"
                );
                return Err(refused("signer_full", ApiError::TooMany(why)));
            }
        };
        let (answer, taken) = oneshot::channel();
        if let Err(error) = queue.try_send(Submission { command, share, answer }) {
            if is_new {
                self.waiting.leave(&digest);
            }
            return Err(match error {
                TrySendError::Full(_) => refused("queue_full", ApiError::Busy),
                TrySendError::Closed(_) => ApiError::Stopping,
            });
        }
        // The place is given back on every answer that is not a yes, also on one that comes when nobody waits for it.
        let waiting = self.waiting.clone();
        let settled = tokio::spawn(async move {
            let answer = taken.await;
            if is_new && !matches!(answer, Ok(Ok(()))) {
                waiting.leave(&digest);
            }
            answer
        });
        match tokio::time::timeout(ANSWER_TIMEOUT, settled).await {
            Ok(Ok(Ok(Ok(())))) => Ok(()),
            Ok(Ok(Ok(Err(_)))) => Err(refused("pending_full", ApiError::Busy)),
            Ok(Ok(Err(_)) | Err(_)) => Err(ApiError::Stopping),
            Err(_) => Err(refused("not_taken_in_time", ApiError::Busy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::{Submission, Submissions, Submitter, queues};
    use crate::{
        consensus::{Rejected, Share},
        knowledge::command::Command,
        service::api::{ApiError, DocumentKind, RefusedDocuments, waiting::MOST_OF_ONE_SIGNER},
        types::{Digest, KeyId},
    };

    fn receipt(number: usize) -> Command {
        Command::Receipt { envelope: number.to_le_bytes().to_vec() }
    }

    fn request(number: usize) -> Command {
        Command::OperatorRequest { envelope: number.to_le_bytes().to_vec() }
    }

    fn key(number: usize) -> KeyId {
        Digest::of(&number.to_le_bytes())
    }

    fn reasons(refused: &RefusedDocuments) -> Vec<(&'static str, u64)> {
        refused.counts().into_iter().map(|(_, _, why, count)| (why, count)).collect()
    }

    /// Consensus takes in what comes, and nothing is ordered.
    async fn take(submissions: &mut Submissions, count: usize) {
        for _ in 0..count {
            let Submission { answer, .. } = submissions.next().await.expect("it waits");
            answer.send(Ok(())).expect("somebody waits");
        }
    }

    async fn flood(
        submitter: &Submitter,
        submissions: &mut Submissions,
        kind: DocumentKind,
        signer: KeyId,
        numbers: std::ops::Range<usize>,
    ) -> Vec<Result<(), ApiError>> {
        let mut answers = Vec::new();
        for number in numbers {
            let command = match kind {
                DocumentKind::Receipt => receipt(number),
                DocumentKind::OperatorRequest => request(number),
            };
            tokio::select! {
                answer = submitter.submit(kind, signer, command) => answers.push(answer),
                () = async { loop { take(submissions, 1).await } } => {}
            }
        }
        answers
    }

    #[tokio::test]
    async fn an_operators_request_overtakes_receipts_and_has_room_of_its_own() {
        let refused = RefusedDocuments::default();
        let (submitter, mut submissions) = queues(refused.clone());
        let mut flood = JoinSet::new();
        for number in 0..300 {
            let submitter = submitter.clone();
            flood.spawn(async move {
                submitter.submit(DocumentKind::Receipt, key(number), receipt(number)).await
            });
        }
        while refused.counts().is_empty() || refused.counts()[0].3 < 44 {
            tokio::task::yield_now().await;
        }
        let submitted = submitter.submit(DocumentKind::OperatorRequest, key(0), request(0));
        let control = async {
            let Submission { share, answer, .. } = submissions.next().await.expect("it waits");
            assert_eq!(share, Share::Urgent, "read before the receipts");
            answer.send(Ok(())).expect("somebody waits");
            for _ in 0..256 {
                let next = submissions.next().await.expect("it waits");
                assert_eq!(next.share, Share::Ordinary);
                next.answer.send(Err(Rejected::PendingFull)).expect("somebody waits");
            }
        };
        let (submitted, ()) = tokio::join!(submitted, control);
        assert_eq!(submitted, Ok(()));
        let receipts = flood.join_all().await;
        assert!(receipts.iter().all(|answer| *answer == Err(ApiError::Busy)));
        assert_eq!(
            reasons(&refused),
            [("pending_full", 256), ("queue_full", 44)],
            "what is refused is counted"
        );
    }

    #[tokio::test]
    async fn a_submission_that_nobody_takes_is_told_so() {
        let (submitter, submissions) = queues(RefusedDocuments::default());
        let unanswered = submitter.submit(DocumentKind::Receipt, key(0), receipt(0)).await;
        assert_eq!(unanswered, Err(ApiError::Busy));
        drop(submissions);
        let gone = submitter.submit(DocumentKind::OperatorRequest, key(0), request(0)).await;
        assert_eq!(gone, Err(ApiError::Stopping));
    }

    #[tokio::test]
    async fn one_key_that_floods_the_door_keeps_no_other_out() {
        for kind in [DocumentKind::Receipt, DocumentKind::OperatorRequest] {
            let refused = RefusedDocuments::default();
            let (submitter, mut submissions) = queues(refused.clone());
            let answers = flood(&submitter, &mut submissions, kind, key(0), 0..300).await;
            let taken = answers.iter().filter(|answer| answer.is_ok()).count();
            assert_eq!(taken, MOST_OF_ONE_SIGNER);
            assert!(answers[taken..].iter().all(|answer| matches!(answer, Err(ApiError::TooMany(_)))));
            assert_eq!(reasons(&refused), [("signer_full", 300 - MOST_OF_ONE_SIGNER as u64)]);
            let others = flood(&submitter, &mut submissions, kind, key(1), 300..301).await;
            assert_eq!(others, [Ok(())]);
        }
    }

    #[tokio::test]
    async fn a_place_comes_back_when_a_document_is_ordered_or_not_taken_in() {
        let (submitter, mut submissions) = queues(RefusedDocuments::default());
        let kind = DocumentKind::Receipt;
        let most = MOST_OF_ONE_SIGNER;
        let mut digests = Vec::new();
        for number in 0..most {
            let submitted = submitter.submit(kind, key(0), receipt(number));
            let control = async {
                let Submission { command, answer, .. } = submissions.next().await.expect("it waits");
                digests.push(command.digest());
                answer.send(Ok(())).expect("somebody waits");
            };
            assert_eq!(tokio::join!(submitted, control).0, Ok(()));
        }
        // What waits already takes no second place; what is new finds none.
        assert_eq!(flood(&submitter, &mut submissions, kind, key(0), 0..1).await, [Ok(())]);
        assert!(flood(&submitter, &mut submissions, kind, key(0), most..most + 1).await[0].is_err());
        submitter.waiting().ordered([digests[0]]);
        // A copy of what was ordered needs none.
        assert_eq!(flood(&submitter, &mut submissions, kind, key(0), 0..1).await, [Ok(())]);
        let rejected = submitter.submit(kind, key(0), receipt(most));
        let control = async {
            let next = submissions.next().await.expect("it waits");
            next.answer.send(Err(Rejected::PendingFull)).expect("somebody waits");
        };
        assert_eq!(tokio::join!(rejected, control).0, Err(ApiError::Busy));
        let again = flood(&submitter, &mut submissions, kind, key(0), most..most + 2).await;
        assert_eq!((again[0].is_ok(), again[1].is_ok()), (true, false));
        // A state that was taken over from peers has blocks behind it that were never folded here.
        submitter.waiting().clear();
        assert_eq!(flood(&submitter, &mut submissions, kind, key(0), most + 1..most + 2).await, [Ok(())]);
    }
}
