//! What can be heard of what was said: the certificates that votes and timeouts add up to, the Byzantine ones' own among
//! them, and every proposal that a Byzantine leader can make.
//!
//! It moves nobody. Invariant: every certificate here verifies, and none needs a signature that an honest replica
//! did not give, but that with merged replicas one quorum's certificate stands for any.

use quorate::{
    consensus::{
        Block, BlockId, Certificates, Command, Message, Payload, Proposal, QuorumCertificate,
        SignedTimeoutView, TimeoutCertificate,
    },
    types::{ReplicaIndex, Signature, View},
};
use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use super::{Heard, Search, Whole};
use crate::{
    models::{QUORUM, REPLICAS, automaton::Statement, leader, place, replica},
    statements,
};

impl Search {
    /// What can be heard, given what everybody has said.
    pub(super) fn heard(&mut self, whole: &Whole) -> Rc<Heard> {
        let said = whole.seats.map(|seat| seat.said);
        if let Some(heard) = self.heard.get(&(whole.view, whole.past, said)) {
            return Rc::clone(heard);
        }
        let past = self.pasts[whole.past as usize].clone();
        let (newly_certified, broken) = self.certified(said);
        let mut certified = past.certified;
        certified.extend(newly_certified);
        let mut messages = Vec::new();
        let loudest = *self.bound.byzantine.first().unwrap_or(&0);
        let genesis = QuorumCertificate::genesis(&self.committee);
        // Those of the view itself lead out of it: they are heard once it is closed.
        for qc in certified.range(..whole.view).map(|(_, qc)| qc) {
            let certificates = Certificates { high_qc: qc.clone(), high_tc: None };
            messages.push((loudest, self.automaton.message(Message::Certificates(certificates))));
        }
        let mut timed_out = past.timed_out;
        timed_out.extend(self.timed_out(whole.view, said, &certified));
        messages.extend(past.proposals);
        for tc in timed_out.iter().filter(|tc| tc.view < whole.view) {
            let certificates = Certificates { high_qc: genesis.clone(), high_tc: Some(tc.clone()) };
            messages.push((loudest, self.automaton.message(Message::Certificates(certificates))));
        }
        for at in self.honest() {
            let proposals = self.said[said[usize::from(at)] as usize].proposals.values();
            messages.extend(proposals.map(|proposal| (at, *proposal)));
        }
        for proposal in self.inventions(whole.view, &genesis, &certified, &timed_out) {
            let from = place(proposal.block.proposer());
            messages.push((from, self.automaton.message(Message::Proposal(proposal))));
        }
        let next = u32::try_from(self.heard_numbers.len()).expect("far fewer fit into memory");
        let number = *self.heard_numbers.entry(messages.clone()).or_insert(next);
        let committed = self.committed(&certified);
        let heard = Rc::new(Heard { number, messages, certified, timed_out, committed, broken });
        self.heard.insert((whole.view, whole.past, said), Rc::clone(&heard));
        heard
    }

    /// The certificates that votes add up to, with the Byzantine ones' own; more than one in a view breaks an invariant.
    fn certified(
        &self,
        said: [u32; REPLICAS as usize],
    ) -> (BTreeMap<View, QuorumCertificate>, Option<String>) {
        let mut votes: BTreeMap<(View, BlockId), Vec<(ReplicaIndex, Signature)>> = BTreeMap::new();
        for at in self.honest() {
            for (view, (block, message)) in &self.said[said[usize::from(at)] as usize].votes {
                if let Statement::Vote(vote) = self.automaton.statement(*message) {
                    votes.entry((*view, *block)).or_default().push((vote.voter, vote.signature));
                }
            }
        }
        let mut certified = BTreeMap::new();
        let mut broken = None;
        for ((view, block), mut signatures) in votes {
            if signatures.len() + self.bound.byzantine.len() < QUORUM {
                continue;
            }
            let height =
                self.automaton.block(block).expect("honest replicas vote for what they have").height();
            let statement = statements::vote(&self.committee, view, height, block);
            if self.bound.merges {
                let first = (0..REPLICAS).take(QUORUM);
                signatures = first.map(|at| (replica(at), self.sign(at, statement.clone()))).collect();
            } else {
                signatures.truncate(QUORUM.saturating_sub(self.bound.byzantine.len()));
                let theirs = self.bound.byzantine.iter();
                signatures.extend(theirs.map(|at| (replica(*at), self.sign(*at, statement.clone()))));
                signatures.sort_unstable();
                signatures.truncate(QUORUM);
            }
            let qc = QuorumCertificate { view, height, block, signatures };
            if certified.insert(view, qc).is_some() {
                broken = Some(format!("two blocks are certified in view {view}"));
            }
        }
        (certified, broken)
    }

    /// The newest block with a certified child of the next view.
    fn committed(&self, certified: &BTreeMap<View, QuorumCertificate>) -> Option<(View, BlockId)> {
        certified.values().rev().find_map(|qc| {
            let justify = self.automaton.block(qc.block)?.justify();
            let consecutive = justify.view != View::ZERO && justify.view.next() == qc.view;
            consecutive.then_some((justify.view, justify.block))
        })
    }

    /// The timeout certificates that timeouts add up to: for each highest QC that one can prove, one of them.
    fn timed_out(
        &self,
        view: View,
        said: [u32; REPLICAS as usize],
        certified: &BTreeMap<View, QuorumCertificate>,
    ) -> Vec<TimeoutCertificate> {
        let honest: Vec<SignedTimeoutView> = self
            .honest()
            .into_iter()
            .filter_map(|at| self.said[said[usize::from(at)] as usize].timeouts.get(&view))
            .filter_map(|message| match self.automaton.statement(*message) {
                Statement::Timeout(timeout) => Some(SignedTimeoutView {
                    signer: timeout.sender,
                    high_qc_view: timeout.high_qc.view,
                    signature: timeout.signature,
                }),
                Statement::Proposal(_) | Statement::Vote(_) | Statement::Other => None,
            })
            .collect();
        let genesis = QuorumCertificate::genesis(&self.committee);
        let claims = [&genesis].into_iter().chain(certified.range(..view).map(|(_, qc)| qc));
        let mut by_highest = BTreeMap::new();
        for (claim, chosen) in claims.flat_map(|claim| subsets(&honest).map(move |chosen| (claim, chosen))) {
            let missing = QUORUM.saturating_sub(chosen.len());
            if missing > self.bound.byzantine.len() || chosen.len() > QUORUM {
                continue;
            }
            let mut timeouts = chosen;
            let statement = statements::timeout(&self.committee, view, claim.view);
            for at in self.bound.byzantine.iter().take(missing) {
                let signature = self.sign(*at, statement.clone());
                timeouts.push(SignedTimeoutView {
                    signer: replica(*at),
                    high_qc_view: claim.view,
                    signature,
                });
            }
            timeouts.sort_unstable_by_key(|timeout| timeout.signer);
            let highest = timeouts.iter().map(|timeout| timeout.high_qc_view).max().unwrap_or_default();
            if self.bound.merges {
                let statement = statements::timeout(&self.committee, view, highest);
                let signed = |at| SignedTimeoutView {
                    signer: replica(at),
                    high_qc_view: highest,
                    signature: self.sign(at, statement.clone()),
                };
                timeouts = (0..REPLICAS).take(QUORUM).map(signed).collect();
            }
            let known = if highest == View::ZERO { Some(&genesis) } else { certified.get(&highest) };
            if let Some(high_qc) = known {
                let high_qc = high_qc.clone();
                by_highest.entry(highest).or_insert(TimeoutCertificate { view, timeouts, high_qc });
            }
        }
        by_highest.into_values().collect()
    }

    /// Every proposal that a Byzantine leader can make: two blocks on each certificate, by each entry or none.
    fn inventions(
        &self,
        view: View,
        genesis: &QuorumCertificate,
        certified: &BTreeMap<View, QuorumCertificate>,
        timed_out: &[TimeoutCertificate],
    ) -> Vec<Proposal> {
        let mut proposals = Vec::new();
        let at = leader(view);
        if view.number() <= self.bound.views && self.bound.byzantine.contains(&at) {
            let entries: Vec<Option<&TimeoutCertificate>> =
                timed_out.iter().filter(|tc| tc.view < view).map(Some).chain([None]).collect();
            for justify in [genesis].into_iter().chain(certified.range(..view).map(|(_, qc)| qc)) {
                for text in ["one", "other"] {
                    let command = Command::new(text.as_bytes().to_vec(), Vec::new()).expect("it is small");
                    let payload = Payload::new(vec![command]);
                    let block = Arc::new(Block::new(view, replica(at), justify.clone(), payload));
                    proposals.extend(entries.iter().map(|entry| {
                        let said = statements::proposal(&self.committee, view, block.id(), justify, *entry);
                        let signature = self.sign(at, said);
                        Proposal { block: Arc::clone(&block), entry: entry.cloned(), signature }
                    }));
                }
            }
        }
        proposals
    }
}

fn subsets(of: &[SignedTimeoutView]) -> impl Iterator<Item = Vec<SignedTimeoutView>> {
    (0..1_usize << of.len()).map(|bits| {
        let chosen = of.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
        chosen.map(|(_, timeout)| *timeout).collect()
    })
}
