//! The links on real sockets.

use bytes::Bytes;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    Class, INCOMING_FRAMES, Inbound, Inbox, LinkSender, Links, LinksConfig, LinksError, MAX_FRAME_BYTES,
    OUTGOING_FRAMES, SendError, Times,
    frame::{Frame, FrameReader, Greeting, Hello, Process, control},
    tls,
};
use crate::types::{Committee, Digest, Epoch, PublicKey, ReplicaIndex, SecretKey, UnixMillis};

/// The clock of the tests stands still.
fn now() -> UnixMillis {
    UnixMillis::new(1_000_000)
}

/// A clock 5 s ahead of it.
fn ahead() -> UnixMillis {
    UnixMillis::new(1_005_000)
}

fn place(number: u16) -> ReplicaIndex {
    ReplicaIndex::new(number)
}

fn secret(number: u16) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(number + 1).expect("committees of tests are small"); 32])
}

fn committee(cluster: &str, epoch: u64, replicas: u16) -> Committee {
    let keys: Vec<PublicKey> = (0..replicas).map(|number| secret(number).public()).collect();
    Committee::new(Digest::of(cluster.as_bytes()), Epoch::new(epoch), keys).expect("the keys differ")
}

/// What a process of a committee of two says first.
fn hello(process: u8) -> Frame {
    let (hello, process) = (Hello::of(&committee("c", 1, 2)), Process::numbered(process));
    Frame::Hello(Greeting { hello, process, met: None })
}

/// Listeners on free ports, and their addresses.
async fn listeners(count: u16) -> (Vec<Option<TcpListener>>, Vec<String>) {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        addresses.push(listener.local_addr().expect("it is bound").to_string());
        listeners.push(Some(listener));
    }
    (listeners, addresses)
}

struct Cluster {
    addresses: Vec<String>,
    replicas: Vec<Option<Replica>>,
}

struct Replica {
    links: Links,
    inbox: Inbox,
}

impl Replica {
    fn start(committee: Committee, me: u16, listener: TcpListener, peers: Vec<String>) -> Self {
        let config = LinksConfig { committee, me: place(me), secret: secret(me), listener, peers, now };
        let (links, inbox) = Links::start(config).expect("the configuration is right");
        Self { links, inbox }
    }

    fn sender(&self) -> LinkSender {
        self.links.sender()
    }

    async fn recv(&mut self) -> Inbound {
        soon(self.inbox.recv()).await.expect("the links are running")
    }
}

impl Cluster {
    async fn of(replicas: u16) -> Self {
        let (mut listeners, addresses) = listeners(replicas).await;
        let start = |me| {
            let listener = listeners[usize::from(me)].take().expect("each is taken once");
            Some(Replica::start(committee("c", 1, replicas), me, listener, addresses.clone()))
        };
        let replicas = (0..replicas).map(start).collect();
        Self { addresses, replicas }
    }

    fn at(&mut self, number: usize) -> &mut Replica {
        self.replicas[number].as_mut().expect("it was started")
    }

    async fn restart(&mut self, number: u16) {
        let replicas = u16::try_from(self.replicas.len()).expect("committees of tests are small");
        let address = &self.addresses[usize::from(number)];
        let listener = TcpListener::bind(address.as_str()).await.expect("its port is free again");
        let addresses = self.addresses.clone();
        self.replicas[usize::from(number)] =
            Some(Replica::start(committee("c", 1, replicas), number, listener, addresses));
    }
}

/// Whatever is waited for happens within this time or never.
async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), waiting).await.expect("it happens within the deadline")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A connection made by hand, past TLS and before the hello.
async fn connect(address: &str, as_secret: &SecretKey, to: u16) -> TlsStream<TcpStream> {
    let connector = tls::connector(as_secret, secret(to).public()).expect("TLS is set up");
    let tcp = TcpStream::connect(address).await.expect("somebody listens");
    connector.connect(tls::server_name(), tcp).await.expect("the server is who it should be")
}

/// Reads until the other side closes.
async fn closed(stream: &mut TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    // Closed orderly or by an error: both are closed.
    let _end = soon(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn four_replicas_reach_each_other_and_measure_their_clocks() {
    let mut cluster = Cluster::of(4).await;
    for from in 0..4_u8 {
        let sender = cluster.at(from.into()).sender();
        sender.broadcast(&Bytes::from(vec![from; 1000]), Class::Urgent).expect("it is short");
        sender.broadcast(&Bytes::from(vec![from; 200_000]), Class::Bulk).expect("it is short");
    }
    for to in 0..4 {
        let mut received = Vec::new();
        for _ in 0..6 {
            let Inbound { from, frame } = cluster.at(to).recv().await;
            assert!(frame.iter().all(|byte| u16::from(*byte) == from.place()), "sent by {from}");
            received.push((from.place(), frame.len()));
        }
        received.sort_unstable();
        let expected: Vec<_> = (0..4_u16)
            .filter(|from| usize::from(*from) != to)
            .flat_map(|from| [(from, 1000), (from, 200_000)])
            .collect();
        assert_eq!(received, expected);
    }
    for number in 0..4 {
        let sender = cluster.at(number).sender();
        until(|| sender.status().peers.iter().all(|peer| peer.round_trip.is_some())).await;
        let status = sender.status();
        assert_eq!(status.peers.len(), 3);
        for peer in status.peers {
            assert_eq!((peer.sent_frames, peer.sent_bytes), (2, 201_010), "to {}", peer.peer);
            assert_eq!((peer.received_frames, peer.received_bytes), (2, 201_010), "from {}", peer.peer);
            assert_eq!((peer.connects, peer.dropped_frames, peer.bad_frames), (1, 0, 0));
            assert_eq!((peer.sending_since, peer.receiving_since), (Some(now()), Some(now())));
            assert_eq!(peer.last_error, None);
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_is_seen_by_its_peer() {
    let (mut listeners, addresses) = listeners(2).await;
    let mut start = |me: u16, now| {
        let listener = listeners[usize::from(me)].take().expect("each is taken once");
        let (committee, peers) = (committee("c", 1, 2), addresses.clone());
        Links::start(LinksConfig { committee, me: place(me), secret: secret(me), listener, peers, now })
            .expect("the configuration is right")
    };
    let (right, _right_inbox) = start(0, now);
    let (wrong, _wrong_inbox) = start(1, ahead);
    for (links, expected) in [(&right, 5000_i64), (&wrong, -5000)] {
        let sender = links.sender();
        until(|| sender.status().peers[0].clock_ahead_ms.is_some()).await;
        let peer = &sender.status().peers[0];
        let half = peer.round_trip.expect("it was measured").as_millis() / 2;
        let difference = peer.clock_ahead_ms.expect("it was measured") - expected;
        assert_eq!(u128::from(difference.unsigned_abs()), half, "clocks of tests stand still");
    }
}

#[tokio::test]
async fn a_stranger_is_refused_in_the_handshake() {
    let mut cluster = Cluster::of(2).await;
    let stranger = SecretKey::from_seed(&[99; 32]);
    let mut stream = connect(&cluster.addresses[0], &stranger, 0).await;
    // The stranger may have sent its hello before the refusal reaches it.
    let _sent = stream.write_all(&control(&hello(9))).await;
    closed(&mut stream).await;
    let sender = cluster.at(0).sender();
    until(|| sender.status().refused == 1).await;
    let refusal = sender.status().last_refusal.expect("there was one");
    assert!(refusal.contains(&stranger.public().id().to_string()), "{refusal}");
}

#[tokio::test]
async fn a_replica_at_another_ones_address_is_not_taken_for_it() {
    let (mut listeners, mut addresses) = listeners(3).await;
    addresses.swap(1, 2);
    let listener = listeners[0].take().expect("it is there");
    let asking = Replica::start(committee("c", 1, 3), 0, listener, addresses.clone());
    let listener = listeners[1].take().expect("it is there");
    let _answering = Replica::start(committee("c", 1, 3), 1, listener, addresses);
    let sender = asking.sender();
    until(|| sender.status().peers[1].last_error.is_some()).await;
    let error = sender.status().peers[1].last_error.clone().expect("there is one");
    assert!(error.contains(&secret(1).public().id().to_string()), "{error}");
    assert_eq!(sender.status().peers[1].sending_since, None);
}

#[tokio::test]
async fn another_cluster_or_epoch_is_refused_and_named_on_both_sides() {
    for (cluster, epoch) in [("other", 1), ("c", 2)] {
        let (mut listeners, addresses) = listeners(2).await;
        let listener = listeners[0].take().expect("it is there");
        let one = Replica::start(committee("c", 1, 2), 0, listener, addresses.clone());
        let listener = listeners[1].take().expect("it is there");
        let other = Replica::start(committee(cluster, epoch, 2), 1, listener, addresses);
        one.sender().send(place(1), Bytes::from_static(b"x"), Class::Urgent).expect("there is a peer");
        for replica in [&one, &other] {
            let sender = replica.sender();
            until(|| sender.status().peers[0].last_error.is_some()).await;
            let peer = sender.status().peers[0].clone();
            let error = peer.last_error.expect("there is one");
            assert!(error.contains("the peer says") && error.contains("this replica is"), "{error}");
            assert!(error.contains("epoch"), "{error}");
            assert_eq!((peer.sending_since, peer.received_frames), (None, 0));
        }
        assert_eq!(one.sender().status().peers[0].queued_frames, 1, "it was sent to the wrong cluster");
    }
}

#[tokio::test]
async fn a_peer_that_returns_is_met_again_and_gets_what_waited() {
    let mut cluster = Cluster::of(3).await;
    let sender = cluster.at(0).sender();
    sender.send(place(1), Bytes::from_static(b"before"), Class::Urgent).expect("there is a peer");
    assert_eq!(cluster.at(1).recv().await.frame, "before");
    cluster.replicas[1] = None;
    until(|| sender.status().peers[0].sending_since.is_none()).await;
    sender.send(place(1), Bytes::from_static(b"while away"), Class::Urgent).expect("there is a peer");
    cluster.restart(1).await;
    assert_eq!(cluster.at(1).recv().await.frame, "while away");
    let status = sender.status();
    assert_eq!(status.peers[0].connects, 2);
    assert!(status.peers[0].last_error.is_some());
    assert_eq!(
        (status.peers[0].returned_processes, status.peers[0].says_key_in_use),
        (0, false),
        "a restart"
    );
    let back = cluster.at(1).sender();
    back.send(place(0), Bytes::from_static(b"back"), Class::Urgent).expect("there is a peer");
    assert_eq!(cluster.at(0).recv().await.frame, "back");
    until(|| sender.status().peers[0].receiving_since.is_some()).await;
}

#[tokio::test]
async fn a_frame_that_is_refused_closes_the_connection_and_is_counted() {
    let mut cluster = Cluster::of(2).await;
    cluster.replicas[1] = None;
    let hello = control(&hello(9));
    let too_long = u32::try_from(MAX_FRAME_BYTES + 1).expect("it fits").to_le_bytes();
    let bad = [
        [too_long.as_slice(), &[0]].concat(),
        vec![0, 0, 0, 0, 77],
        hello.clone(),
        control(&Frame::Pong { number: 1, time: now() }),
    ];
    let sender = cluster.at(0).sender();
    for (count, frame) in (1..).zip(bad) {
        let mut stream = connect(&cluster.addresses[0], &secret(1), 0).await;
        stream.write_all(&hello).await.expect("it is read");
        let good = control(&Frame::Data(Bytes::from_static(b"good")));
        stream.write_all(&[good, frame].concat()).await.expect("it is read");
        closed(&mut stream).await;
        until(|| sender.status().peers[0].bad_frames == count).await;
        assert_eq!(cluster.at(0).recv().await.frame, "good");
    }
    let mut stream = connect(&cluster.addresses[0], &secret(1), 0).await;
    stream.write_all(&control(&Frame::Data(Bytes::from_static(b"no hello")))).await.expect("it is read");
    closed(&mut stream).await;
    until(|| sender.status().peers[0].bad_frames == 5).await;
    assert_eq!(cluster.at(0).inbox.try_recv(), None);
}

#[tokio::test]
async fn a_newer_connection_of_a_peer_replaces_the_older() {
    let mut cluster = Cluster::of(2).await;
    cluster.replicas[1] = None;
    let hello = control(&hello(9));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&cluster.addresses[0], &secret(1), 0).await;
        stream.write_all(&hello).await.expect("it is read");
        let answer = soon(FrameReader::default().next(&mut stream)).await.expect("a hello comes");
        let Frame::Hello(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.hello, Hello::of(&committee("c", 1, 2)));
        // An answered ping says that the connection is being served.
        stream.write_all(&control(&Frame::Ping { number: 5 })).await.expect("it is read");
        let answer = soon(FrameReader::default().next(&mut stream)).await.expect("a pong comes");
        assert_eq!(answer, Frame::Pong { number: 5, time: now() });
        streams.push(stream);
    }
    closed(&mut streams[0]).await;
    streams[1].write_all(&control(&Frame::Data(Bytes::from_static(b"x")))).await.expect("it is read");
    assert_eq!(cluster.at(0).recv().await.from, place(1));
    assert!(cluster.at(0).sender().status().peers[0].receiving_since.is_some());
}

#[tokio::test]
async fn a_process_that_comes_back_after_another_one_shows_that_two_hold_the_key() {
    let mut cluster = Cluster::of(2).await;
    cluster.replicas[1] = None;
    let sender = cluster.at(0).sender();
    // Links that break and a restart are nothing; the second time that 7 comes after 8, both are alive.
    let mut before = None;
    for (process, returned) in [(7, 0), (7, 0), (8, 0), (8, 0), (7, 1), (7, 1), (8, 2)] {
        let mut stream = connect(&cluster.addresses[0], &secret(1), 0).await;
        stream.write_all(&control(&hello(process))).await.expect("it is read");
        let answer = soon(FrameReader::default().next(&mut stream)).await.expect("a hello comes");
        let Frame::Hello(answer) = answer else { panic!("{answer:?}") };
        if before.is_some() {
            assert_eq!(answer.met, before, "who came last");
        }
        before = Some(Process::numbered(process));
        assert_eq!(sender.status().peers[0].returned_processes, returned, "process {process}");
    }
}

#[tokio::test]
async fn a_second_process_with_the_same_key_is_told_of_to_both() {
    let mut cluster = Cluster::of(2).await;
    let (peer, first) = (cluster.at(0).sender(), cluster.at(1).sender());
    until(|| first.status().peers[0].connects > 0).await;
    // A copy that nobody dials; it dials as the first one does.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let copy = Replica::start(committee("c", 1, 2), 1, listener, cluster.addresses.clone());
    let second = copy.sender();
    for sender in [&first, &second] {
        until(|| sender.status().peers[0].says_key_in_use).await;
    }
    until(|| peer.status().peers[0].returned_processes > 0).await;
    assert!(!peer.status().peers[0].says_key_in_use, "its own key is its own");
}

#[tokio::test]
async fn a_replica_that_does_not_read_delays_nobody_else() {
    let mut cluster = Cluster::of(3).await;
    let sender = cluster.at(0).sender();
    let large = Bytes::from(vec![1; 1_000_000]);
    for _ in 0..200 {
        sender.send(place(1), large.clone(), Class::Urgent).expect("there is a peer");
    }
    for index in 0..50_u8 {
        sender.send(place(2), Bytes::from(vec![index]), Class::Urgent).expect("there is a peer");
        assert_eq!(cluster.at(2).recv().await.frame[..], [index]);
    }
    let peer = sender.status().peers[0].clone();
    assert!(peer.dropped_frames > 0 && peer.queued_bytes > 0, "{peer:?}");
}

#[tokio::test]
async fn a_flood_of_one_peer_does_not_hide_another_ones_vote() {
    let mut cluster = Cluster::of(3).await;
    let (flooding, voting) = (cluster.at(1).sender(), cluster.at(2).sender());
    for _ in 0..OUTGOING_FRAMES {
        flooding.send(place(0), Bytes::from_static(b"flood"), Class::Urgent).expect("there is a peer");
    }
    let reading = cluster.at(0).sender();
    until(|| reading.status().peers[0].waiting_frames == INCOMING_FRAMES).await;
    voting.send(place(0), Bytes::from_static(b"vote"), Class::Urgent).expect("there is a peer");
    until(|| reading.status().peers[1].waiting_frames == 1).await;
    let first = [cluster.at(0).recv().await, cluster.at(0).recv().await];
    assert!(first.iter().any(|inbound| inbound.frame == "vote"), "{first:?}");
}

/// Times that make a silence short.
const SHORT: Times =
    Times { ping: Duration::from_millis(20), silence: Duration::from_millis(200), ..Times::USUAL };

/// Times in which a shutdown may take as long as the machine needs, with pongs on the way all the while.
const PATIENT: Times =
    Times { ping: Duration::from_millis(1), flush: Duration::from_secs(30), ..Times::USUAL };

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_and_dialled_anew() {
    for waiting in [0, 40] {
        let (mut listeners, addresses) = listeners(2).await;
        let (committee, listener) = (committee("c", 1, 2), listeners[0].take().expect("it is there"));
        let config =
            LinksConfig { committee, me: place(0), secret: secret(0), listener, peers: addresses, now };
        let (links, _inbox) = Links::start_with(config, SHORT).expect("the configuration is right");
        let sender = links.sender();
        for _ in 0..waiting {
            sender.send(place(1), Bytes::from(vec![0; 1_000_000]), Class::Bulk).expect("there is a peer");
        }
        let acceptor = tls::acceptor(&secret(1), vec![secret(0).public()]).expect("TLS is set up");
        let mut silent = Vec::new();
        for connects in 1..=2 {
            let (tcp, _) =
                soon(listeners[1].as_ref().expect("it is there").accept()).await.expect("the replica dials");
            let mut stream = soon(acceptor.accept(tcp)).await.expect("it has its key");
            soon(FrameReader::default().next(&mut stream)).await.expect("a hello comes");
            let hello = control(&hello(9));
            stream.write_all(&hello).await.expect("it is read");
            silent.push(stream);
            until(|| sender.status().peers[0].connects == connects).await;
            until(|| sender.status().peers[0].sending_since.is_none()).await;
        }
        assert_eq!(sender.status().peers[0].last_error.as_deref(), Some("the peer was silent"));
    }
}

#[tokio::test]
async fn an_accepted_connection_without_a_sign_of_life_is_closed() {
    let (mut listeners, addresses) = listeners(2).await;
    let (committee, listener) = (committee("c", 1, 2), listeners[0].take().expect("it is there"));
    let peers = addresses.clone();
    let config = LinksConfig { committee, me: place(0), secret: secret(0), listener, peers, now };
    let (links, _inbox) = Links::start_with(config, SHORT).expect("the configuration is right");
    let mut stream = connect(&addresses[0], &secret(1), 0).await;
    let hello = control(&hello(9));
    stream.write_all(&hello).await.expect("it is read");
    let sender = links.sender();
    until(|| sender.status().peers[0].receiving_since.is_some()).await;
    closed(&mut stream).await;
    until(|| sender.status().peers[0].receiving_since.is_none()).await;
}

#[tokio::test]
async fn a_queue_that_is_full_has_dropped_its_oldest_frames() {
    let (mut listeners, addresses) = listeners(2).await;
    let listener = listeners[0].take().expect("it is there");
    drop(listeners);
    let sending = Replica::start(committee("c", 1, 2), 0, listener, addresses.clone());
    let sender = sending.sender();
    for index in 0..OUTGOING_FRAMES + 10 {
        sender.send(place(1), Bytes::from(index.to_string()), Class::Urgent).expect("there is a peer");
    }
    let peer = sender.status().peers[0].clone();
    assert_eq!((peer.dropped_frames, peer.queued_frames), (10, OUTGOING_FRAMES));
    let listener = TcpListener::bind(&addresses[1]).await.expect("the port is free again");
    let mut receiving = Replica::start(committee("c", 1, 2), 1, listener, addresses);
    for index in 10..OUTGOING_FRAMES + 10 {
        assert_eq!(receiving.recv().await.frame, index.to_string());
    }
}

#[tokio::test]
async fn a_frame_that_nobody_can_get_is_refused_at_once() {
    let mut cluster = Cluster::of(2).await;
    let sender = cluster.at(0).sender();
    for to in [0, 2] {
        let refused = sender.send(place(to), Bytes::new(), Class::Urgent);
        assert_eq!(refused, Err(SendError::NoSuchPeer(place(to))));
    }
    let bytes = MAX_FRAME_BYTES + 1;
    let refused = sender.broadcast(&Bytes::from(vec![0; bytes]), Class::Bulk);
    assert_eq!(refused, Err(SendError::TooLong { bytes }));
    sender.broadcast(&Bytes::from(vec![0; bytes - 1]), Class::Bulk).expect("the limit itself is allowed");
    assert_eq!(cluster.at(1).recv().await.frame.len(), bytes - 1);
}

#[tokio::test]
async fn a_shutdown_sends_what_is_queued_and_ends_the_inbox() {
    let (mut listeners, addresses) = listeners(2).await;
    let (committee, listener) = (committee("c", 1, 2), listeners[0].take().expect("it is there"));
    let peers = addresses.clone();
    let config =
        LinksConfig { committee: committee.clone(), me: place(0), secret: secret(0), listener, peers, now };
    let (ending, mut inbox) = Links::start_with(config, PATIENT).expect("the configuration is right");
    let listener = listeners[1].take().expect("it is there");
    let mut receiving = Replica::start(committee, 1, listener, addresses.clone());
    let sender = ending.sender();
    until(|| sender.status().peers[0].round_trip.is_some()).await;
    for _ in 0..100 {
        sender.send(place(1), Bytes::from(vec![7; 10_000]), Class::Bulk).expect("there is a peer");
    }
    soon(ending.shutdown()).await;
    assert_eq!(soon(inbox.recv()).await, None);
    for _ in 0..100 {
        assert_eq!(receiving.recv().await.frame.len(), 10_000);
    }
    TcpListener::bind(&addresses[0]).await.expect("the port is free again");
}

#[tokio::test]
async fn a_configuration_that_contradicts_itself_is_refused() {
    let (mut listeners, addresses) = listeners(2).await;
    let mut config = |me: u16, key: u16, peers: &[String]| LinksConfig {
        committee: committee("c", 1, 2),
        me: place(me),
        secret: secret(key),
        listener: listeners.pop().flatten().expect("there is another"),
        peers: peers.to_vec(),
        now,
    };
    let swapped = Links::start(config(0, 1, &addresses)).map(|_| ());
    assert!(matches!(swapped, Err(LinksError::NotMyPlace { me }) if me == place(0)));
    let short = Links::start(config(0, 0, &addresses[..1])).map(|_| ());
    assert!(matches!(short, Err(LinksError::Addresses { replicas: 2, got: 1 })));
}

#[tokio::test]
async fn connections_that_never_speak_keep_no_peer_out() {
    let (mut listeners, addresses) = listeners(2).await;
    let listener = listeners[0].take().expect("it is there");
    let mut replica = Replica::start(committee("c", 1, 2), 0, listener, addresses.clone());
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(&addresses[0]).await.expect("somebody listens"));
    }
    let sender = replica.sender();
    until(|| sender.status().refused >= 44).await;
    let listener = listeners[1].take().expect("it is there");
    let peer = Replica::start(committee("c", 1, 2), 1, listener, addresses);
    peer.sender().send(place(0), Bytes::from_static(b"x"), Class::Urgent).expect("there is a peer");
    assert_eq!(replica.recv().await.frame, "x");
    assert_eq!(idle.len(), 300);
}

/// The shared parts are used from several threads.
#[test]
fn handles_can_be_sent_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<LinkSender>();
    check::<Inbox>();
    check::<Arc<Links>>();
}
