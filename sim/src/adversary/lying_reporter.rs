//! An adversary that reports what nobody saw: for each window that others report, one or two reports of its own, of any
//! size; that endorses plans and heads which nobody derived, or others' digests without knowing their bytes; and that hands in
//! operators' requests and receipts in its own name, and those of others with a changed byte.
//!
//! In consensus it is honest. Invariant: its reports carry its own valid signature.

use quorate::{
    consensus::{Command as Ordered, Message, certify::Endorsement},
    knowledge::{
        command::Command,
        observation::{ReportHeader, WindowSummary},
        operator_request::OPERATOR_REQUEST_TYPE,
        receipt::RECEIPT_TYPE,
    },
    types::{Digest, Envelope, ReplicaIndex, UnixMillis, WindowIndex, pae},
};

use super::{
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::{rng::Stream, statements, telemetry::summary};

/// How many requests and receipts it forges.
const MOST_FORGED: u32 = 40;

/// Lies about what it saw.
#[derive(Debug)]
pub(super) struct LyingReporter {
    signer: Signer,
    stream: Stream,
    newest: Option<WindowIndex>,
    /// How many requests and receipts it still forges.
    left: u32,
    extra: Vec<Addressed>,
}

impl LyingReporter {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, newest: None, left: MOST_FORGED, extra: Vec::new() }
    }

    fn lie(&mut self, window: WindowIndex, signed_at: UnixMillis) -> Ordered {
        let summary = match self.stream.below(5) {
            0 => WindowSummary::default(),
            1 => summary(i64::MAX),
            2 => summary(i64::MIN),
            3 => summary(0),
            _ => summary(1_000),
        };
        let window = if self.stream.chance(100) { WindowIndex::new(window.index() + 1_000) } else { window };
        let header = ReportHeader {
            replica: self.signer.config.me,
            window,
            partial: self.stream.chance(200),
            signed_at,
            body: Digest::of_value(&summary),
        };
        let report = header.sign(&self.signer.config.committee.domain(0), &self.signer.config.key);
        let encoded = Command::Report { report, summary }.encode();
        Ordered::new(encoded.head, encoded.body).expect("it is small")
    }
}

impl LyingReporter {
    /// The same body signed by itself, or the same envelope with one bit changed, as either kind of command.
    fn forge(&mut self, envelope: &[u8]) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let Ok(known) = Envelope::from_json(envelope) else { return };
        let forged = if self.stream.chance(500) {
            let document_type = [OPERATOR_REQUEST_TYPE, RECEIPT_TYPE][self.stream.index(2)];
            let body = known.unverified_body().to_vec();
            let key = &self.signer.config.key;
            let signature = key.sign(&pae(document_type, &body));
            Envelope::new(document_type, body, vec![(key.public().id(), signature)]).to_json()
        } else {
            let mut bytes = envelope.to_vec();
            let place = self.stream.index(bytes.len());
            bytes[place] ^= 1 << self.stream.below(8);
            bytes
        };
        let command = if self.stream.chance(500) {
            Command::OperatorRequest { envelope: forged }
        } else {
            Command::Receipt { envelope: forged }
        };
        let encoded = command.encode();
        let command = Ordered::new(encoded.head, encoded.body).expect("it is small");
        self.extra.extend(self.signer.to_all(Message::Commands(vec![command])));
    }
}

impl Behaviour for LyingReporter {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        let Message::Commands(commands) = message else { return true };
        for command in commands {
            let report = match Command::decode(command.head(), command.body()) {
                Ok(Command::Report { report, .. }) => report,
                Ok(Command::OperatorRequest { envelope } | Command::Receipt { envelope }) => {
                    self.forge(&envelope);
                    continue;
                }
                Ok(Command::Tick(_) | Command::Certified { .. } | Command::Evidence(_)) | Err(_) => continue,
            };
            let header = report.header;
            if self.newest.is_none_or(|newest| header.window > newest) {
                self.newest = Some(header.window);
                for _ in 0..=self.stream.below(2) {
                    let lie = self.lie(header.window, header.signed_at);
                    self.extra.extend(self.signer.to_all(Message::Commands(vec![lie])));
                }
            }
        }
        true
    }

    fn hears_endorsement(&mut self, endorsement: &Endorsement) {
        if !self.stream.chance(200) {
            return;
        }
        let digest = if self.stream.chance(500) {
            endorsement.digest
        } else {
            Digest::of(endorsement.digest.as_bytes())
        };
        let signature = self.signer.config.key.sign(digest.as_bytes());
        let (signer, subject) = (self.signer.config.me, endorsement.subject.clone());
        let statement = statements::pledge(&self.signer.config.committee, &subject, digest);
        let pledge = self.signer.config.key.sign(&statement);
        let false_one = Endorsement { subject, digest, signer, signature, pledge };
        self.extra.extend(self.signer.to_all(false_one));
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
