//! The connection that a replica dials to one peer, to send on it. Rules 1, 3, 5 and 7 of the module.
//!
//! Invariant: frames are taken from the queue only while a connection stands, and are written in order.

use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt as _, BufWriter},
    net::TcpStream,
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    BUFFER_BYTES, HANDSHAKE_TIMEOUT,
    error::LinkError,
    frame::{Frame, FrameError, FrameReader, HEADER_BYTES, Process, control, data_header},
    links::{Peer, Shared, lock},
    status::Pings,
    tls,
};
use crate::types::{ReplicaIndex, UnixMillis};

/// The delay after a first failure: a peer that restarts is back soon.
const FIRST_DELAY: Duration = Duration::from_millis(50);

/// The longest delay: a peer that returns after hours is met within seconds.
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// How much is taken from the queue at once: some records of TLS, far below what delays a ping noticeably.
const BATCH_BYTES: usize = 256 * 1024;

/// Whom to dial.
pub(super) struct Target {
    pub(super) place: ReplicaIndex,
    pub(super) address: String,
    pub(super) connector: TlsConnector,
}

/// Dials one peer again and again until the links close.
pub(super) async fn keep_connected(shared: Arc<Shared>, target: Target, mut closing: watch::Receiver<bool>) {
    let Some(peer) = shared.peer(target.place) else { return };
    let mut delay = FIRST_DELAY;
    loop {
        let connecting = timeout(HANDSHAKE_TIMEOUT, Connection::open(&shared, &target));
        let connected = tokio::select! {
            connected = connecting => connected.unwrap_or(Err(LinkError::HandshakeTimeout)),
            () = closed(&mut closing) => return,
        };
        let error = match connected {
            Ok(mut connection) => {
                let other = connection.met.filter(|met| *met != shared.process);
                peer.connected((shared.now)(), other.is_some());
                let began = Instant::now();
                let ended = connection.serve(&shared, peer, &mut closing).await;
                // A peer that keeps closing what it has just accepted is not dialled without pause.
                if began.elapsed() >= LONGEST_DELAY {
                    delay = FIRST_DELAY;
                }
                ended
            }
            Err(error) => error,
        };
        lock(&peer.status).sending_since = None;
        if matches!(error, LinkError::ShutDown) {
            return;
        }
        peer.record(&error);
        tokio::select! {
            () = sleep(jittered(delay)) => {}
            () = closed(&mut closing) => return,
        }
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// Ends when the links close.
async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

/// Between half and all of the delay, so that a committee that restarts does not dial in step.
fn jittered(delay: Duration) -> Duration {
    // Without randomness the delay is merely not jittered.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    delay / 2 + (delay / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

struct Connection {
    /// The process with this replica's key that the peer says it met last before.
    met: Option<Process>,
    stream: BufWriter<TlsStream<TcpStream>>,
    arriving: FrameReader,
    silence: Duration,
    ticks: Interval,
    pings: Pings,
    ping: Option<SentPing>,
    next_ping: u64,
}

struct SentPing {
    number: u64,
    sent: UnixMillis,
    sent_at: Instant,
}

impl Connection {
    async fn open(shared: &Shared, target: &Target) -> Result<Self, LinkError> {
        let tcp = TcpStream::connect(&target.address)
            .await
            .map_err(|error| LinkError::Connect { address: target.address.clone(), error })?;
        tcp.set_nodelay(true)?;
        let tls = target.connector.connect(tls::server_name(), tcp).await.map_err(LinkError::Handshake)?;
        let mut stream = BufWriter::with_capacity(BUFFER_BYTES, tls);
        stream.write_all(&control(&Frame::Hello(shared.greeting(None)))).await?;
        stream.flush().await?;
        let mut arriving = FrameReader::default();
        let met = match arriving.next(&mut stream).await? {
            Frame::Hello(theirs) if theirs.hello == shared.hello => theirs.met,
            Frame::Hello(theirs) => {
                return Err(LinkError::Hello { ours: shared.hello, theirs: theirs.hello });
            }
            Frame::Data(_) | Frame::Ping { .. } | Frame::Pong { .. } => {
                return Err(FrameError::Unexpected.into());
            }
        };
        let mut ticks = interval(shared.times.ping);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pings = Pings::default();
        let silence = shared.times.silence;
        Ok(Self { met, stream, arriving, silence, ticks, pings, ping: None, next_ping: 1 })
    }

    /// Sends what is queued until the connection ends; says why it did.
    async fn serve(
        &mut self,
        shared: &Shared,
        peer: &Peer,
        closing: &mut watch::Receiver<bool>,
    ) -> LinkError {
        // A connection that ended may have taken the notice that something waits.
        peer.waiting.notify_one();
        loop {
            let step = tokio::select! {
                frame = self.arriving.next(&mut self.stream) => match frame {
                    Ok(frame) => self.on_frame(peer, &frame),
                    Err(error) => Err(error),
                },
                () = peer.waiting.notified() => self.write_batch(peer).await,
                _ = self.ticks.tick() => self.on_tick(shared.now).await,
                () = closed(closing) => {
                    // Best effort: the peer does without the rest.
                    let _ended = timeout(shared.times.flush, self.finish(peer)).await;
                    Err(LinkError::ShutDown)
                }
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    fn on_frame(&mut self, peer: &Peer, frame: &Frame) -> Result<(), LinkError> {
        match (frame, self.ping.take()) {
            (Frame::Pong { number, time }, Some(ping)) if *number == ping.number => {
                self.pings.add(ping.sent, *time, ping.sent_at.elapsed());
                if let Some((round_trip, clock_ahead_ms)) = self.pings.best() {
                    let mut status = lock(&peer.status);
                    (status.round_trip, status.clock_ahead_ms) = (Some(round_trip), Some(clock_ahead_ms));
                }
                Ok(())
            }
            (Frame::Pong { .. } | Frame::Data(_) | Frame::Hello(_) | Frame::Ping { .. }, _) => {
                Err(FrameError::Unexpected.into())
            }
        }
    }

    async fn on_tick(&mut self, now: fn() -> UnixMillis) -> Result<(), LinkError> {
        match &self.ping {
            Some(ping) if ping.sent_at.elapsed() > self.silence => Err(LinkError::Silent),
            Some(_) => Ok(()),
            None => {
                let number = self.next_ping;
                self.write(&control(&Frame::Ping { number })).await?;
                self.flush().await?;
                self.next_ping += 1;
                self.ping = Some(SentPing { number, sent: now(), sent_at: Instant::now() });
                Ok(())
            }
        }
    }

    async fn write_batch(&mut self, peer: &Peer) -> Result<(), LinkError> {
        let (batch, more) = {
            let mut outbox = lock(&peer.outbox);
            (outbox.take(BATCH_BYTES), !outbox.is_empty())
        };
        for frame in &batch {
            self.write(&data_header(frame)).await?;
            self.write(frame).await?;
        }
        self.flush().await?;
        if more {
            peer.waiting.notify_one();
        }
        let bytes: usize = batch.iter().map(|frame| HEADER_BYTES + Bytes::len(frame)).sum();
        let mut status = lock(&peer.status);
        status.sent_frames += batch.len() as u64;
        status.sent_bytes += bytes as u64;
        Ok(())
    }

    /// Writes in pieces: however slow the line, each of them must be taken in time.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for piece in bytes.chunks(BUFFER_BYTES) {
            timeout(self.silence, self.stream.write_all(piece)).await.map_err(|_| LinkError::Silent)??;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(timeout(self.silence, self.stream.flush()).await.map_err(|_| LinkError::Silent)??)
    }

    async fn finish(&mut self, peer: &Peer) -> Result<(), LinkError> {
        while !lock(&peer.outbox).is_empty() {
            self.write_batch(peer).await?;
        }
        self.stream.shutdown().await?;
        // A socket that is closed with something unread resets the connection, and the peer loses what it has
        // not read yet. So the end is the peer's.
        while self.arriving.next(&mut self.stream).await.is_ok() {}
        Ok(())
    }
}
