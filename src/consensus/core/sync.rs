//! Fetching and serving blocks (rules F1, F2).

use std::sync::Arc;

use super::{Core, Output, Rejected, handlers::with_checked_justify};
use crate::consensus::{
    block::Block,
    certificate::{QuorumCertificate, Verified},
    limits::{FETCH_ANSWER_BYTES_PER_MS, FETCH_ANSWER_INTERVAL, MAX_FETCHED_BLOCKS, MAX_FETCHED_BYTES},
    message::{BlockRequest, BlockResponse, Message},
};
use crate::types::{Millis, ReplicaIndex};

/// A fetched block with its verified certificate.
type CertifiedBlock = (Arc<Block>, Verified<QuorumCertificate>);

impl Core {
    /// Asks the next peer when a fetch is due.
    pub(super) fn request_blocks(&mut self, now: Millis) {
        let arrived = self.fetch.target().is_some_and(|target| {
            target.get().height <= self.tree.committed_height()
                || self.tree.path(target.get().block).is_some()
        });
        if arrived {
            self.fetch.done();
            return;
        }
        if let Some((to, request)) = self.fetch.next_request(self.me, self.tree.committed_height(), now) {
            self.outputs.push_back(Output::Send { to, message: Message::BlockRequest(request) });
        }
    }

    /// Answers from memory what memory holds; what is older is the journal's to answer.
    pub(super) fn answer_block_request(&mut self, now: Millis, to: ReplicaIndex, request: BlockRequest) {
        if self.block_answers.get(&to).is_some_and(|earliest| now < *earliest) {
            return;
        }
        if request.above.next() < self.tree.lowest_in_memory() {
            self.pace_answers(now, to, MAX_FETCHED_BYTES);
            self.outputs.push_back(Output::ServeFromJournal { to, request });
            return;
        }
        let committed = self.tree.recent_above(request.above).map(|recent| Arc::clone(&recent.block));
        let mut chain: Vec<Arc<Block>> = committed.collect();
        match self.tree.path(request.target) {
            Some(path) => chain.extend(path),
            // A target that is not here may be above what is committed here: that much still helps.
            None => chain.retain(|block| block.height() <= request.target_height),
        }
        chain.retain(|block| block.height() > request.above);
        if let Some(response) = self.certified_prefix(chain) {
            let bytes = response.blocks.iter().map(|block| block.size_bytes()).sum();
            self.pace_answers(now, to, bytes);
            self.outputs.push_back(Output::Send { to, message: Message::BlockResponse(response) });
        }
    }

    /// A peer's next request is answered only after a time that pays for this answer: requests are small and
    /// answers are not.
    fn pace_answers(&mut self, now: Millis, to: ReplicaIndex, bytes: usize) {
        self.block_answers.insert(to, now.plus(pause_after(bytes)));
    }

    /// As many of the blocks, lowest first, as fit an answer and have a certificate for the last.
    fn certified_prefix(&self, chain: Vec<Arc<Block>>) -> Option<BlockResponse> {
        let mut bytes = 0;
        let mut blocks: Vec<Arc<Block>> = chain
            .into_iter()
            .take(MAX_FETCHED_BLOCKS)
            .take_while(|block| {
                let fits = bytes == 0 || bytes + block.size_bytes() <= MAX_FETCHED_BYTES;
                bytes += block.size_bytes().max(1);
                fits
            })
            .collect();
        while let Some(last) = blocks.last() {
            if let Some(tip) = self.certificate_of(last) {
                return Some(BlockResponse { blocks, tip });
            }
            blocks.pop();
        }
        None
    }

    fn certificate_of(&self, block: &Block) -> Option<QuorumCertificate> {
        let highest = self.safety.high_qc().get();
        if highest.block == block.id() {
            return Some(highest.clone());
        }
        self.tree.certificate_of(block.id()).cloned()
    }

    /// Takes in a certified chain (rule F1).
    pub(super) fn handle_block_response(
        &mut self,
        from: ReplicaIndex,
        response: BlockResponse,
    ) -> Result<(), Rejected> {
        if !self.fetch.answered(from) {
            return Err(Rejected::Unsolicited);
        }
        let chain = self.verify_chain(response).inspect_err(|_| self.fetch.did_not_help())?;
        let reached = chain.last().map(|(block, _)| block.height());
        match reached.filter(|_| chain.iter().any(|(block, _)| !self.tree.contains(block.id()))) {
            Some(reached) => self.fetch.helped(from, reached),
            None => self.fetch.did_not_help(),
        }
        for (block, certificate) in chain {
            if block.height() > self.tree.committed_height() {
                self.store_block(&block);
            }
            self.absorb_qc(&certificate);
            self.commit_by(certificate.get());
        }
        Ok(())
    }

    /// The blocks of an answer, each with its verified certificate.
    fn verify_chain(&mut self, response: BlockResponse) -> Result<Vec<CertifiedBlock>, Rejected> {
        let BlockResponse { blocks, tip } = response;
        let first = blocks.first().ok_or(Rejected::BrokenChain)?;
        if blocks.len() > MAX_FETCHED_BLOCKS || self.tree.path(first.parent()).is_none() {
            return Err(Rejected::BrokenChain);
        }
        let mut justify = self.verify_qc(first.justify())?;
        let certificates: Vec<_> =
            blocks.iter().skip(1).map(|block| block.justify().clone()).chain([tip]).collect();
        let mut chain = Vec::with_capacity(blocks.len());
        for (block, certificate) in blocks.into_iter().zip(certificates) {
            let certifies = certificate.block == block.id()
                && certificate.height == block.height()
                && certificate.view == block.view();
            if !certifies || block.justify().view >= block.view() {
                return Err(Rejected::BrokenChain);
            }
            let certificate = self.verify_qc(&certificate)?;
            chain.push((with_checked_justify(block, &justify), certificate.clone()));
            justify = certificate;
        }
        Ok(chain)
    }
}

/// The time that pays for an answer of so many bytes.
pub(super) fn pause_after(bytes: usize) -> Millis {
    Millis::new(u64::try_from(bytes / FETCH_ANSWER_BYTES_PER_MS).unwrap_or(u64::MAX))
        .max(FETCH_ANSWER_INTERVAL)
}
