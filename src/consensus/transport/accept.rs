//! The connections that a replica accepts from its peers, to receive on them. Rules 1, 3, 6 and 7.
//!
//! Invariant: nothing is read into the inbox before the key of the other side is known to be a peer's.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    HANDSHAKE_TIMEOUT,
    error::LinkError,
    frame::{Frame, FrameError, FrameReader, HEADER_BYTES, control},
    inbox::ReaderGone,
    links::{Peer, Shared, lock},
    tls,
};
use crate::types::ReplicaIndex;

/// The most connections that are not yet known to be a peer's. When one more comes, the oldest is closed: a
/// peer is through within milliseconds, so strangers who only hold connections open keep nobody out.
const HANDSHAKES: usize = 256;

/// How long to wait when the system has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that is not yet known to be a peer's.
struct Handshake {
    task: AbortHandle,
    done: Arc<AtomicBool>,
}

/// Accepts connections until it is cancelled, and all connections with it.
pub(super) async fn accept_all(shared: Arc<Shared>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    let mut handshakes: VecDeque<Handshake> = VecDeque::new();
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                shared.refuse(&LinkError::Io(error));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        handshakes.retain(|handshake| !handshake.done.load(Ordering::Relaxed));
        if handshakes.len() >= HANDSHAKES
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.task.abort();
            shared.refuse(&LinkError::HandshakeTimeout);
        }
        let done = Arc::new(AtomicBool::new(false));
        let task = connections.spawn(receive(Arc::clone(&shared), acceptor.clone(), tcp, Arc::clone(&done)));
        handshakes.push_back(Handshake { task, done });
    }
}

/// One accepted connection from its first byte to its last.
async fn receive(shared: Arc<Shared>, acceptor: TlsAcceptor, tcp: TcpStream, done: Arc<AtomicBool>) {
    let opened = timeout(HANDSHAKE_TIMEOUT, Connection::open(&shared, &acceptor, tcp)).await;
    done.store(true, Ordering::Relaxed);
    let (mut connection, greeted) = match opened.unwrap_or(Err(LinkError::HandshakeTimeout)) {
        Ok(opened) => opened,
        Err(error) => return shared.refuse(&error),
    };
    let Some(peer) = shared.peer(connection.from) else { return };
    if let Err(error) = greeted {
        return peer.record(&error);
    }
    let error = connection.serve_until_replaced(&shared, peer).await;
    peer.record(&error);
}

struct Connection {
    from: ReplicaIndex,
    stream: TlsStream<TcpStream>,
    arriving: FrameReader,
}

impl Connection {
    /// A connection of a peer, and whether its hello is right.
    async fn open(
        shared: &Shared,
        acceptor: &TlsAcceptor,
        tcp: TcpStream,
    ) -> Result<(Self, Result<(), LinkError>), LinkError> {
        tcp.set_nodelay(true)?;
        let mut stream = acceptor.accept(tcp).await.map_err(LinkError::Handshake)?;
        let from = tls::peer_key(stream.get_ref().1.peer_certificates())
            .and_then(|key| shared.committee.place_of(&key))
            .ok_or(LinkError::Closed)?;
        let mut arriving = FrameReader::default();
        let greeted = match arriving.next(&mut stream).await? {
            Frame::Hello(theirs) if theirs.hello == shared.hello => Ok(theirs.process),
            Frame::Hello(theirs) => Err(LinkError::Hello { ours: shared.hello, theirs: theirs.hello }),
            Frame::Data(_) | Frame::Ping { .. } | Frame::Pong { .. } => Err(FrameError::Unexpected.into()),
        };
        let met = greeted.as_ref().ok().and_then(|process| shared.peer(from)?.meet(*process));
        // The answer comes in any case: the other side then knows what differs.
        stream.write_all(&control(&Frame::Hello(shared.greeting(met)))).await?;
        stream.flush().await?;
        Ok((Self { from, stream, arriving }, greeted.map(|_| ())))
    }

    /// Serves as the newest connection of the peer, until it ends or a newer one comes; says why it ended.
    async fn serve_until_replaced(&mut self, shared: &Shared, peer: &Peer) -> LinkError {
        let mut newest = {
            let mut status = lock(&peer.status);
            status.receiving_since = Some((shared.now)());
            peer.receiving.send_modify(|number| *number += 1);
            peer.receiving.subscribe()
        };
        tokio::select! {
            error = self.serve(shared, peer) => {
                let mut status = lock(&peer.status);
                if matches!(newest.has_changed(), Ok(false)) {
                    status.receiving_since = None;
                }
                error
            }
            _ = newest.changed() => LinkError::Replaced,
        }
    }

    async fn serve(&mut self, shared: &Shared, peer: &Peer) -> LinkError {
        loop {
            let frame = match timeout(shared.times.silence, self.arriving.next(&mut self.stream)).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return error,
                Err(_) => return LinkError::Silent,
            };
            let step = match frame {
                Frame::Data(frame) => {
                    {
                        let mut status = lock(&peer.status);
                        status.received_frames += 1;
                        status.received_bytes += (HEADER_BYTES + frame.len()) as u64;
                    }
                    let pushed = shared.mailroom.push(self.from, frame).await;
                    pushed.map_err(|ReaderGone| LinkError::ShutDown)
                }
                Frame::Ping { number } => self.answer(number, shared).await,
                Frame::Hello(_) | Frame::Pong { .. } => Err(FrameError::Unexpected.into()),
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    async fn answer(&mut self, number: u64, shared: &Shared) -> Result<(), LinkError> {
        let pong = control(&Frame::Pong { number, time: (shared.now)() });
        let answering = async {
            self.stream.write_all(&pong).await?;
            self.stream.flush().await
        };
        Ok(timeout(shared.times.silence, answering).await.map_err(|_| LinkError::Silent)??)
    }
}
