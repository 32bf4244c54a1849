//! What waits to be sent to one peer.
//!
//! No connection here. Invariant: neither class ever holds more than its bounds; what goes to make room is the
//! oldest, and is counted.

use bytes::Bytes;
use std::collections::VecDeque;

use super::frame::HEADER_BYTES;

/// The most frames that wait for a peer, per class: some seconds of votes of the largest committee.
pub const OUTGOING_FRAMES: usize = 8192;

/// The most bytes that wait for a peer, per class: four of the largest frames. Frames that go to all peers
/// share their bytes.
pub const OUTGOING_BYTES: usize = 64 * 1024 * 1024;

/// What is sent first when both wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Proposals, votes, timeouts, certificates: whatever views wait for.
    Urgent,
    /// Answers to a replica that catches up, and all that may come a little later.
    Bulk,
}

/// The queues to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    urgent: Lane,
    bulk: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Adds a frame; returns how many older ones were dropped for it.
    pub(super) fn push(&mut self, frame: Bytes, class: Class) -> u64 {
        let lane = match class {
            Class::Urgent => &mut self.urgent,
            Class::Bulk => &mut self.bulk,
        };
        lane.bytes += frame.len();
        lane.frames.push_back(frame);
        let mut dropped = 0;
        while lane.frames.len() > OUTGOING_FRAMES || lane.bytes > OUTGOING_BYTES {
            lane.pop();
            dropped += 1;
        }
        dropped
    }

    /// The next frames to send, at least one if any waits: urgent ones until some `bytes` are together, and
    /// one of the others, so that neither class waits for ever.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut batch = Vec::new();
        let mut room = bytes;
        for (lane, at_least) in [(&mut self.urgent, 0), (&mut self.bulk, 1)] {
            let mut taken = 0;
            while room > 0 || taken < at_least {
                let Some(frame) = lane.pop() else { break };
                room = room.saturating_sub(HEADER_BYTES + frame.len());
                taken += 1;
                batch.push(frame);
            }
        }
        batch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames() == 0
    }

    pub(super) fn frames(&self) -> usize {
        self.urgent.frames.len() + self.bulk.frames.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.urgent.bytes + self.bulk.bytes
    }
}

impl Lane {
    fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::transport::MAX_FRAME_BYTES;

    #[test]
    fn a_full_queue_drops_its_oldest_frames_and_counts_them() {
        let mut outbox = Outbox::default();
        for index in 0..OUTGOING_FRAMES {
            assert_eq!(outbox.push(Bytes::from(index.to_string()), Class::Urgent), 0);
        }
        assert_eq!(outbox.push(Bytes::from_static(b"new"), Class::Urgent), 1);
        assert_eq!(
            outbox.push(Bytes::from_static(b"bulk"), Class::Bulk),
            0,
            "classes have room of their own"
        );
        assert_eq!(outbox.frames(), OUTGOING_FRAMES + 1);
        let first = outbox.take(1);
        assert_eq!(first, [Bytes::from_static(b"1"), Bytes::from_static(b"bulk")]);
    }

    #[test]
    fn the_bound_in_bytes_holds_too() {
        let mut outbox = Outbox::default();
        let large = Bytes::from(vec![0; MAX_FRAME_BYTES]);
        let dropped: u64 = (0..6).map(|_| outbox.push(large.clone(), Class::Bulk)).sum();
        assert_eq!((dropped, outbox.bytes()), (2, OUTGOING_BYTES));
        while !outbox.is_empty() {
            assert_eq!(outbox.take(1).len(), 1);
        }
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn urgent_frames_go_first_and_others_are_not_starved() {
        let mut outbox = Outbox::default();
        for index in 0..10_u8 {
            outbox.push(Bytes::from(vec![index; 100]), Class::Bulk);
            outbox.push(Bytes::from(vec![100 + index; 100]), Class::Urgent);
        }
        let firsts = |batch: Vec<Bytes>| batch.iter().map(|frame| frame[0]).collect::<Vec<_>>();
        assert_eq!(firsts(outbox.take(250)), [100, 101, 102, 0]);
        assert_eq!(firsts(outbox.take(10_000)).len(), 16);
        assert!(outbox.take(1).is_empty());
    }
}
