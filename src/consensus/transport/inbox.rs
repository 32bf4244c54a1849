//! What has arrived from all peers and waits for its one reader.
//!
//! Invariant: no peer has more than its bounds waiting, and each peer with something waiting is served once
//! before any is served twice.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

use crate::types::{CommitteeSize, ReplicaIndex};

/// The most frames of one peer that wait: as many as are verified within some ten milliseconds.
pub const INCOMING_FRAMES: usize = 1024;

/// The most bytes of one peer that wait: two of the largest frames.
pub const INCOMING_BYTES: usize = 32 * 1024 * 1024;

/// A frame and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The sender's place, known from its key.
    pub from: ReplicaIndex,
    /// The bytes, unchecked.
    pub frame: Bytes,
}

/// The reader's end. When it is dropped, all connections that receive are closed.
#[derive(Debug)]
pub struct Inbox(Arc<Mailroom>);

/// The connections' end: one queue per place.
#[derive(Debug)]
pub(super) struct Mailroom {
    queues: Mutex<Queues>,
    /// Something has arrived, or nothing will any more.
    arrived: Notify,
    /// Per place: there is room again.
    room: Vec<Notify>,
}

#[derive(Debug)]
struct Queues {
    peers: Vec<Queue>,
    /// The place that is served next.
    turn: usize,
    reader_is_gone: bool,
    senders_are_gone: bool,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct ReaderGone;

impl Inbox {
    pub(super) fn new(size: CommitteeSize) -> (Self, Arc<Mailroom>) {
        let peers = (0..size.replicas()).map(|_| Queue::default()).collect();
        let room = (0..size.replicas()).map(|_| Notify::new()).collect();
        let queues = Queues { peers, turn: 0, reader_is_gone: false, senders_are_gone: false };
        let mailroom = Arc::new(Mailroom { queues: Mutex::new(queues), arrived: Notify::new(), room });
        (Self(Arc::clone(&mailroom)), mailroom)
    }

    /// The next frame, from the peers in turn; `None` once the links are shut down and all was taken. It can be
    /// cancelled without losing a frame.
    pub async fn recv(&mut self) -> Option<Inbound> {
        loop {
            if let Some(inbound) = self.try_recv() {
                return Some(inbound);
            }
            if self.0.lock().senders_are_gone {
                return None;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next frame, if one is waiting.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        let (place, frame) = self.0.lock().take()?;
        self.0.room[place].notify_one();
        let from = ReplicaIndex::new(u16::try_from(place).expect("a committee is small"));
        Some(Inbound { from, frame })
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.lock().reader_is_gone = true;
        self.0.room.iter().for_each(Notify::notify_one);
    }
}

impl Mailroom {
    /// Adds a frame of a peer, once there is room for it.
    pub(super) async fn push(&self, from: ReplicaIndex, frame: Bytes) -> Result<(), ReaderGone> {
        let mut frame = Some(frame);
        loop {
            {
                let mut queues = self.lock();
                if queues.reader_is_gone {
                    return Err(ReaderGone);
                }
                if queues.peers[from.as_usize()].add(&mut frame) {
                    break;
                }
            }
            self.room[from.as_usize()].notified().await;
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Nothing will arrive any more.
    pub(super) fn close(&self) {
        self.lock().senders_are_gone = true;
        self.arrived.notify_one();
    }

    /// How many frames of a peer wait.
    pub(super) fn waiting(&self, from: ReplicaIndex) -> usize {
        self.lock().peers[from.as_usize()].frames.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Every change under this lock is complete before anything can panic.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    fn take(&mut self) -> Option<(usize, Bytes)> {
        let places = (self.turn..self.peers.len()).chain(0..self.turn);
        for place in places {
            let queue = &mut self.peers[place];
            if let Some(frame) = queue.frames.pop_front() {
                queue.bytes -= frame.len();
                self.turn = (place + 1) % self.peers.len();
                return Some((place, frame));
            }
        }
        None
    }
}

impl Queue {
    /// Takes the frame if there is room; an empty queue has room for any.
    fn add(&mut self, frame: &mut Option<Bytes>) -> bool {
        let bytes = frame.as_ref().map_or(0, Bytes::len);
        let full = self.frames.len() >= INCOMING_FRAMES || self.bytes + bytes > INCOMING_BYTES;
        if full && !self.frames.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.frames.extend(frame.take());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::transport::MAX_FRAME_BYTES;

    fn place(number: u16) -> ReplicaIndex {
        ReplicaIndex::new(number)
    }

    fn inbox() -> (Inbox, Arc<Mailroom>) {
        Inbox::new(CommitteeSize::new(4).expect("four replicas are a committee"))
    }

    #[tokio::test]
    async fn peers_are_served_in_turn_however_much_one_of_them_sends() {
        let (mut inbox, mailroom) = inbox();
        for index in 0..100_u8 {
            mailroom.push(place(1), Bytes::from(vec![index])).await.expect("the reader is there");
        }
        for from in [3, 2] {
            mailroom.push(place(from), Bytes::from_static(b"vote")).await.expect("the reader is there");
        }
        let mut order = Vec::new();
        while let Some(inbound) = inbox.try_recv() {
            order.push(inbound.from.place());
        }
        assert_eq!(order[..5], [1, 2, 3, 1, 1]);
        assert_eq!(order.len(), 102);
    }

    #[tokio::test]
    async fn a_full_queue_holds_back_its_own_peer_only() {
        let (mut inbox, mailroom) = inbox();
        for _ in 0..INCOMING_FRAMES {
            mailroom.push(place(1), Bytes::from_static(b"x")).await.expect("the reader is there");
        }
        let mut held_back = std::pin::pin!(mailroom.push(place(1), Bytes::from_static(b"last")));
        tokio::select! {
            biased;
            _ = &mut held_back => panic!("a full queue took another frame"),
            pushed = mailroom.push(place(2), Bytes::from_static(b"y")) => pushed.expect("the reader is there"),
        }
        assert_eq!(inbox.recv().await.map(|inbound| inbound.from), Some(place(1)));
        held_back.await.expect("there is room now");
        assert_eq!(mailroom.waiting(place(1)), INCOMING_FRAMES);
    }

    #[tokio::test]
    async fn the_bound_in_bytes_holds_and_a_single_frame_always_fits() {
        let (mut inbox, mailroom) = inbox();
        let large = Bytes::from(vec![0; MAX_FRAME_BYTES]);
        mailroom.push(place(0), large.clone()).await.expect("the reader is there");
        mailroom.push(place(0), large.clone()).await.expect("the reader is there");
        let mut held_back = std::pin::pin!(mailroom.push(place(0), Bytes::from_static(b"x")));
        tokio::select! {
            biased;
            _ = &mut held_back => panic!("a full queue took another frame"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(inbox.recv().await.map(|inbound| inbound.frame.len()), Some(large.len()));
        held_back.await.expect("there is room now");
    }

    #[tokio::test]
    async fn either_end_learns_that_the_other_is_gone() {
        let (mut inbox, mailroom) = inbox();
        mailroom.push(place(0), Bytes::from_static(b"x")).await.expect("the reader is there");
        mailroom.close();
        assert!(inbox.recv().await.is_some());
        assert_eq!(inbox.recv().await, None);
        drop(inbox);
        assert!(mailroom.push(place(0), Bytes::from_static(b"x")).await.is_err());
    }
}
