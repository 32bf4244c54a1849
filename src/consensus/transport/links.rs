//! Starting, using and ending the links of a replica.
//!
//! The connections themselves are in `dial` and `accept`. Invariant: every task of the links ends when
//! [`Links`] is shut down or dropped.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::rustls;

use super::{
    LOG_INTERVAL, Times, accept, dial,
    error::LinkError,
    frame::{Greeting, Hello, MAX_FRAME_BYTES, Process},
    inbox::{Inbox, Mailroom},
    outbox::{Class, Outbox},
    status::{LinkStatus, LinksStatus},
    tls,
};
use crate::types::{Committee, ReplicaIndex, SecretKey, UnixMillis};

/// What the links of a replica need.
#[derive(Debug)]
pub struct LinksConfig {
    /// The committee of the epoch.
    pub committee: Committee,
    /// This replica's place.
    pub me: ReplicaIndex,
    /// This replica's key.
    pub secret: SecretKey,
    /// Where peers connect to.
    pub listener: TcpListener,
    /// All replicas' addresses by place, as `host:port`, resolved at every connecting. The own one is not used.
    pub peers: Vec<String>,
    /// The wall clock, for the difference to the peers' clocks and for the status.
    pub now: fn() -> UnixMillis,
}

/// Why links cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The place and the key do not belong together.
    #[error("this replica's key is not the committee's key at place {me}")]
    NotMyPlace {
        /// The place.
        me: ReplicaIndex,
    },
    /// There must be one address per replica.
    #[error("{got} addresses were given for a committee of {replicas}")]
    Addresses {
        /// The committee's size.
        replicas: usize,
        /// How many there were.
        got: usize,
    },
    /// No randomness for the number by which peers tell this process from others.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The TLS library refuses the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The place is this replica's own or outside the committee.
    #[error("there is no peer at place {0}")]
    NoSuchPeer(ReplicaIndex),
    /// No peer would take it.
    #[error("a frame of {bytes} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

/// The running links of a replica. Dropping them ends all connections at once.
#[derive(Debug)]
pub struct Links {
    sender: LinkSender,
    closing: watch::Sender<bool>,
    accepting: JoinSet<()>,
    dialling: JoinSet<()>,
}

/// Sends frames and tells the status. Clones use the same links.
#[derive(Clone, Debug)]
pub struct LinkSender(Arc<Shared>);

/// What all tasks of the links share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) committee: Committee,
    pub(super) hello: Hello,
    /// This process.
    pub(super) process: Process,
    pub(super) now: fn() -> UnixMillis,
    pub(super) times: Times,
    pub(super) mailroom: Arc<Mailroom>,
    peers: BTreeMap<ReplicaIndex, Peer>,
    refused: Mutex<(u64, Option<String>)>,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) outbox: Mutex<Outbox>,
    /// Something waits in the outbox.
    pub(super) waiting: Notify,
    pub(super) status: Mutex<LinkStatus>,
    /// How many connections of the peer were accepted: only the newest is read.
    pub(super) receiving: watch::Sender<u64>,
    /// The failure that the log was told last, and when; `None` since a connection stands.
    told: Mutex<Option<(String, Instant)>>,
    /// The processes with its key that connected, the newest last.
    met: Mutex<VecDeque<Process>>,
}

/// How many processes with one key are told apart: two suffice to see that there are two.
const MET_PROCESSES: usize = 4;

impl Links {
    /// Starts dialling all peers and accepting their connections. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinksError`] when the configuration contradicts itself.
    pub fn start(config: LinksConfig) -> Result<(Self, Inbox), LinksError> {
        Self::start_with(config, Times::USUAL)
    }

    pub(super) fn start_with(config: LinksConfig, times: Times) -> Result<(Self, Inbox), LinksError> {
        let LinksConfig { committee, me, secret, listener, peers: addresses, now } = config;
        let size = committee.size();
        if committee.key(me) != Some(&secret.public()) {
            return Err(LinksError::NotMyPlace { me });
        }
        if addresses.len() != size.replicas() {
            return Err(LinksError::Addresses { replicas: size.replicas(), got: addresses.len() });
        }
        let others: Vec<_> =
            committee.iter().filter(|(place, _)| *place != me).map(|(place, key)| (place, *key)).collect();
        let acceptor = tls::acceptor(&secret, others.iter().map(|(_, key)| *key).collect())?;
        let (inbox, mailroom) = Inbox::new(size);
        let shared = Arc::new(Shared {
            hello: Hello::of(&committee),
            process: Process::draw().map_err(|error| LinksError::Random(error.to_string()))?,
            now,
            times,
            mailroom,
            peers: others.iter().map(|(place, _)| (*place, Peer::new(*place))).collect(),
            refused: Mutex::default(),
            committee,
        });
        let (closing, closed) = watch::channel(false);
        let mut dialling = JoinSet::new();
        for (place, key) in others {
            let target = dial::Target {
                place,
                address: addresses[place.as_usize()].clone(),
                connector: tls::connector(&secret, key)?,
            };
            dialling.spawn(dial::keep_connected(Arc::clone(&shared), target, closed.clone()));
        }
        let mut accepting = JoinSet::new();
        accepting.spawn(accept::accept_all(Arc::clone(&shared), listener, acceptor));
        let sender = LinkSender(shared);
        Ok((Self { sender, closing, accepting, dialling }, inbox))
    }

    /// A handle to send with.
    #[must_use]
    pub fn sender(&self) -> LinkSender {
        self.sender.clone()
    }

    /// Ends the links: nothing is accepted any more, and what is queued is sent where that is quick.
    pub async fn shutdown(mut self) {
        self.accepting.shutdown().await;
        self.closing.send_replace(true);
        let all_ended = async { while self.dialling.join_next().await.is_some() {} };
        // Whoever has not taken the rest by then does without it.
        let _late = timeout(self.sender.0.times.flush, all_ended).await;
        self.dialling.shutdown().await;
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.sender.0.mailroom.close();
    }
}

impl LinkSender {
    /// Queues a frame for a peer. It never waits; the oldest frame of a full queue is dropped.
    ///
    /// # Errors
    /// [`SendError`] when it cannot ever be sent.
    pub fn send(&self, to: ReplicaIndex, frame: Bytes, class: Class) -> Result<(), SendError> {
        check_length(&frame)?;
        self.0.peer(to).ok_or(SendError::NoSuchPeer(to))?.queue(frame, class);
        Ok(())
    }

    /// Queues a frame for all peers, who share its bytes.
    ///
    /// # Errors
    /// [`SendError::TooLong`].
    pub fn broadcast(&self, frame: &Bytes, class: Class) -> Result<(), SendError> {
        check_length(frame)?;
        self.0.peers.values().for_each(|peer| peer.queue(frame.clone(), class));
        Ok(())
    }

    /// The state of all links.
    #[must_use]
    pub fn status(&self) -> LinksStatus {
        let (refused, last_refusal) = lock(&self.0.refused).clone();
        let peers = self.0.peers.values().map(|peer| {
            let mut status = lock(&peer.status).clone();
            let outbox = lock(&peer.outbox);
            (status.queued_frames, status.queued_bytes) = (outbox.frames(), outbox.bytes());
            status.waiting_frames = self.0.mailroom.waiting(status.peer);
            status
        });
        LinksStatus { peers: peers.collect(), refused, last_refusal }
    }
}

impl Shared {
    pub(super) fn peer(&self, place: ReplicaIndex) -> Option<&Peer> {
        self.peers.get(&place)
    }

    /// What this process says first; in an answer with what was met last.
    pub(super) const fn greeting(&self, met: Option<Process>) -> Greeting {
        Greeting { hello: self.hello, process: self.process, met }
    }

    pub(super) fn refuse(&self, error: &LinkError) {
        let mut refused = lock(&self.refused);
        refused.0 += 1;
        refused.1 = Some(error.to_string());
    }
}

impl Peer {
    fn new(place: ReplicaIndex) -> Self {
        Self {
            outbox: Mutex::default(),
            waiting: Notify::new(),
            status: Mutex::new(LinkStatus::new(place)),
            receiving: watch::Sender::new(0),
            told: Mutex::default(),
            met: Mutex::default(),
        }
    }

    fn queue(&self, frame: Bytes, class: Class) {
        let dropped = lock(&self.outbox).push(frame, class);
        if dropped > 0 {
            lock(&self.status).dropped_frames += dropped;
        }
        self.waiting.notify_one();
    }

    /// Takes note of a process of the peer that connects (rule 3); gives the one that was met last before.
    pub(super) fn meet(&self, process: Process) -> Option<Process> {
        let (before, is_back) = {
            let mut met = lock(&self.met);
            let before = met.back().copied();
            let place = met.iter().position(|known| *known == process);
            let is_back = place.is_some() && before != Some(process);
            place.map(|place| met.remove(place));
            met.push_back(process);
            if met.len() > MET_PROCESSES {
                met.pop_front();
            }
            (before, is_back)
        };
        if is_back {
            let (place, times) = {
                let mut status = lock(&self.status);
                status.returned_processes += 1;
                (status.peer, status.returned_processes)
            };
            if times == 1 {
                tracing::warn!(peer = %place, "link: two processes connect with this peer's key in turn");
            }
        }
        before
    }

    /// Marks the connection to the peer as standing. It may say that it met another process with this replica's key
    /// last, which counts when this one had connected before.
    pub(super) fn connected(&self, since: UnixMillis, met_another: bool) {
        let place = {
            let mut status = lock(&self.status);
            status.says_key_in_use |= met_another && status.connects > 0;
            (status.sending_since, status.connects) = (Some(since), status.connects + 1);
            status.peer
        };
        *lock(&self.told) = None;
        tracing::info!(peer = %place, "link: connected");
    }

    /// Records why a connection ended. The log tells it once, not at every try.
    pub(super) fn record(&self, error: &LinkError) {
        let text = error.to_string();
        let place = {
            let mut status = lock(&self.status);
            if matches!(error, LinkError::Frame(_)) {
                status.bad_frames += 1;
            }
            status.last_error = Some(text.clone());
            status.peer
        };
        let mut told = lock(&self.told);
        let is_news = told.as_ref().is_none_or(|(old, when)| *old != text && when.elapsed() > LOG_INTERVAL);
        if is_news {
            tracing::warn!(peer = %place, "link: {text}");
            *told = Some((text, Instant::now()));
        }
    }
}

/// No task panics while it holds one of these locks: each holds it for a few assignments.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const fn check_length(frame: &Bytes) -> Result<(), SendError> {
    if frame.len() > MAX_FRAME_BYTES { Err(SendError::TooLong { bytes: frame.len() }) } else { Ok(()) }
}
