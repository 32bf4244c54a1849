//! An adversary that reports what nobody saw: for each window that others report, one or two reports of its own, of any
//! size; and that endorses plans and heads which nobody derived, or others' digests without knowing their bytes.
//!
//! In consensus it is honest. Invariant: its reports carry its own valid signature.

use quorate::{
    consensus::{Command as Ordered, Message, certify::Endorsement},
    knowledge::{
        command::Command,
        observation::{ReportHeader, WindowSummary},
    },
    types::{Digest, ReplicaIndex, UnixMillis, WindowIndex},
};

use super::{
    puppeteer::{Addressed, Behaviour},
    signer::Signer,
};
use crate::{rng::Stream, telemetry::summary};

/// Lies about what it saw.
#[derive(Debug)]
pub(super) struct LyingReporter {
    signer: Signer,
    stream: Stream,
    newest: Option<WindowIndex>,
    extra: Vec<Addressed>,
}

impl LyingReporter {
    pub(super) const fn new(signer: Signer, stream: Stream) -> Self {
        Self { signer, stream, newest: None, extra: Vec::new() }
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

impl Behaviour for LyingReporter {
    fn hears(&mut self, _from: ReplicaIndex, message: &Message) -> bool {
        let Message::Commands(commands) = message else { return true };
        for command in commands {
            let Ok(Command::Report { report, .. }) = Command::decode(command.head(), command.body()) else {
                continue;
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
        let signer = self.signer.config.me;
        let false_one = Endorsement { digest, signer, signature, ..endorsement.clone() };
        self.extra.extend(self.signer.to_all(false_one));
    }

    fn adds(&mut self) -> Vec<Addressed> {
        std::mem::take(&mut self.extra)
    }
}
