//! Replicas that a test scripts: sockets that serve what the quorum certified, or lies of every kind.
//!
//! They are threads with plain sockets, because no HTTP server would send what these send. Invariant: honest
//! replicas of one [`Quorum`] serve the same head under one number.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use quorate::{
    knowledge::{
        head::{HEAD_TYPE, Head, HeadEntry, Mode},
        plan::{PLAN_TYPE, Plan},
    },
    service::clock::wall_clock,
    types::{Cycle, Digest, HeadNumber, Millis, Shard, TargetId},
};

use crate::fixture::{head_of, plan, replica_keys, seal, sealed_head, sealed_plan, slots, target};

/// A new head is certified so often; an agent's `stale_after` is well above.
const SLOT: Duration = Duration::from_secs(1);

/// The fixture's plan, issued a moment ago.
pub(crate) fn plan_of_today() -> Plan {
    let now = wall_clock();
    Plan {
        issued_at: now.minus(Millis::from_secs(1)),
        not_before: now.minus(Millis::from_secs(1)),
        expires_at: now.plus(Millis::from_secs(900)),
        ..plan()
    }
}

/// What the honest replicas have agreed on, shared by all of them.
#[derive(Clone, Debug)]
pub(crate) struct Quorum(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agreed: Mutex<Agreed>,
    changed: Condvar,
}

#[derive(Debug)]
struct Agreed {
    head: Head,
    envelope: Vec<u8>,
    plan: Option<Plan>,
    /// Whether honest replicas serve the plan that the head names, or lag behind.
    serves_plan: bool,
    receipts: Vec<Vec<u8>>,
}

impl Quorum {
    /// A quorum that has certified no plan; its heads rise until it is dropped.
    pub(crate) fn start() -> Self {
        let mut head = head_of(1, Mode::Act, &plan());
        head.time = wall_clock();
        head.targets =
            vec![HeadEntry { target: target(), seq: Cycle::ZERO, plan: Digest::ZERO, mode: Mode::Act }];
        let envelope = sealed_head(&head);
        let agreed = Agreed { head, envelope, plan: None, serves_plan: true, receipts: Vec::new() };
        let shared = Arc::new(Shared { agreed: Mutex::new(agreed), changed: Condvar::new() });
        let weak = Arc::downgrade(&shared);
        thread::spawn(move || {
            while let Some(shared) = weak.upgrade() {
                Self(shared).change(|_| {});
                thread::sleep(SLOT);
            }
        });
        Self(shared)
    }

    fn agreed(&self) -> MutexGuard<'_, Agreed> {
        self.0.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new head, after this change.
    fn change(&self, change: impl FnOnce(&mut Agreed)) {
        let mut agreed = self.agreed();
        change(&mut agreed);
        agreed.head.number = HeadNumber::new(agreed.head.number.number() + 1);
        agreed.head.time = wall_clock();
        agreed.envelope = sealed_head(&agreed.head);
        self.0.changed.notify_all();
    }

    /// Certifies a plan.
    pub(crate) fn publish(&self, plan: &Plan) {
        self.change(|agreed| {
            agreed.head.targets = head_of(0, Mode::Act, plan).targets;
            agreed.plan = Some(plan.clone());
        });
    }

    /// Whether honest replicas have the plan itself, not only the head that names it.
    pub(crate) fn serve_plan(&self, serves: bool) {
        self.change(|agreed| agreed.serves_plan = serves);
    }

    /// The receipts that honest replicas took.
    pub(crate) fn receipts(&self) -> Vec<Vec<u8>> {
        self.agreed().receipts.clone()
    }

    /// The newest head's envelope above a number, after at most this wait.
    fn head_after(&self, after: u64, wait: Duration) -> Option<Vec<u8>> {
        let is_old = |agreed: &mut Agreed| agreed.head.number.number() <= after;
        let waited = self.0.changed.wait_timeout_while(self.agreed(), wait, is_old);
        let (agreed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (agreed.head.number.number() > after).then(|| agreed.envelope.clone())
    }

    fn plan_envelope(&self) -> Option<Vec<u8>> {
        let agreed = self.agreed();
        agreed.plan.as_ref().filter(|_| agreed.serves_plan).map(sealed_plan)
    }
}

/// How a replica behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    Honest,
    /// Takes connections and never says a word.
    Silent,
    /// Takes no connections.
    Down,
    /// Serves the first head there ever was.
    OldHead,
    /// A head above all others, signed by itself.
    ForgedHead,
    /// A certified head of another shard.
    OtherShard,
    /// A certified head that names other targets only.
    OtherTargets,
    /// Two heads where one was asked for.
    TwoHeads,
    /// Another certified plan of the target.
    OldPlan,
    /// A certified plan of another target.
    OtherTargetsPlan,
    /// The right plan, signed by itself.
    UnsignedPlan,
    /// No plan, though the head names one.
    NoPlan,
    /// A body without an end, as fast as it goes.
    EndlessBody,
    /// A body that comes byte by byte and never ends.
    SlowBody,
    /// Interim answers without an end.
    EndlessInterim,
    /// A status line that comes byte by byte.
    SlowHead,
    /// Headers without an end.
    EndlessHeaders,
    /// No HTTP.
    Garbage,
    /// HTML, with status 200.
    Html,
    /// JSON of another shape.
    OtherJson,
    /// Half an answer.
    ClosesMidway,
    /// Nothing at all.
    ClosesAtOnce,
    /// An error with a long body.
    Error,
    /// Status 204.
    NoContent,
    /// Sends the agent elsewhere.
    Redirect,
}

/// A replica that is served until the test ends.
#[derive(Debug)]
pub(crate) struct Replica {
    address: SocketAddr,
    down: Arc<AtomicBool>,
    /// How many requests came to where [`Conduct::Redirect`] points.
    pub(crate) followed: Arc<AtomicU64>,
    /// How many questions for heads stood open here at once, at most.
    pub(crate) most_at_once: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Served {
    conduct: Conduct,
    quorum: Quorum,
    first_head: Vec<u8>,
    followed: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
    most_at_once: Arc<AtomicU64>,
}

impl Replica {
    pub(crate) fn start(conduct: Conduct, quorum: &Quorum) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let down = Arc::new(AtomicBool::new(conduct == Conduct::Down));
        let first_head = quorum.agreed().envelope.clone();
        let followed = Arc::new(AtomicU64::new(0));
        let most_at_once = Arc::new(AtomicU64::new(0));
        let served = Served {
            conduct,
            quorum: quorum.clone(),
            first_head,
            followed: Arc::clone(&followed),
            open: Arc::default(),
            most_at_once: Arc::clone(&most_at_once),
        };
        let is_down = Arc::clone(&down);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), served) = (stream, served.clone()) else { return };
                if is_down.load(Ordering::SeqCst) {
                    continue;
                }
                // A client that has gone ends the exchange; nobody waits for it.
                thread::spawn(move || served.exchange(stream));
            }
        });
        Self { address, down, followed, most_at_once }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Comes up, when it was down; it is then honest.
    pub(crate) fn up(&self) {
        self.down.store(false, Ordering::SeqCst);
    }
}

/// One request.
pub(crate) struct Asked {
    pub(crate) path: String,
    body: Vec<u8>,
}

impl Served {
    fn exchange(&self, mut stream: TcpStream) -> io::Result<()> {
        while let Some(asked) = read_request(&mut stream)? {
            let is_heads = asked.path.starts_with("/v1/heads");
            if is_heads {
                let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_at_once.fetch_max(open, Ordering::SeqCst);
            }
            let answered = self.answer(&mut stream, &asked);
            if is_heads {
                self.open.fetch_sub(1, Ordering::SeqCst);
            }
            answered?;
        }
        Ok(())
    }

    fn answer(&self, stream: &mut TcpStream, asked: &Asked) -> io::Result<()> {
        let path = asked.path.as_str();
        if path.starts_with("/elsewhere") {
            self.followed.fetch_add(1, Ordering::SeqCst);
        }
        if path.starts_with("/v1/receipts") {
            if self.conduct == Conduct::Honest || self.conduct == Conduct::Down {
                self.quorum.agreed().receipts.push(asked.body.clone());
            }
            return json(stream, "202 Accepted", r#"{"status":"queued"}"#);
        }
        let is_heads = path.starts_with("/v1/heads");
        if let Some(transport) = self.transport_lie(stream) {
            return transport;
        }
        let documents = if is_heads { self.heads(path) } else { self.plans() };
        let documents: Vec<_> =
            documents.into_iter().map(|bytes| String::from_utf8(bytes).expect("JSON is UTF-8")).collect();
        let name = if is_heads { "heads" } else { "plans" };
        json(stream, "200 OK", &format!("{{\"{name}\":[{}]}}", documents.join(",")))
    }

    fn honest_head(&self, path: &str) -> Vec<Vec<u8>> {
        let (after, wait) = (number_in(path, "after="), number_in(path, "wait="));
        self.quorum.head_after(after, Duration::from_secs(wait)).into_iter().collect()
    }

    /// The documents in an answer about heads.
    fn heads(&self, path: &str) -> Vec<Vec<u8>> {
        let mut head = self.quorum.agreed().head.clone();
        match self.conduct {
            Conduct::OldHead => vec![self.first_head.clone()],
            Conduct::ForgedHead => {
                head.number = HeadNumber::new(1_000_000);
                vec![seal(HEAD_TYPE, head.to_bytes(), &replica_keys()[..1])]
            }
            Conduct::OtherShard => {
                head.shard = Shard::new(1);
                vec![sealed_head(&head)]
            }
            Conduct::OtherTargets => {
                head.targets[0].target = TargetId::new("other").expect("a valid name");
                head.number = HeadNumber::new(1_000_000);
                vec![sealed_head(&head)]
            }
            Conduct::TwoHeads => vec![self.first_head.clone(), sealed_head(&head)],
            Conduct::Honest
            | Conduct::Down
            | Conduct::OldPlan
            | Conduct::OtherTargetsPlan
            | Conduct::UnsignedPlan
            | Conduct::NoPlan => self.honest_head(path),
            Conduct::Silent
            | Conduct::EndlessBody
            | Conduct::SlowBody
            | Conduct::EndlessInterim
            | Conduct::SlowHead
            | Conduct::EndlessHeaders
            | Conduct::Garbage
            | Conduct::Html
            | Conduct::OtherJson
            | Conduct::ClosesMidway
            | Conduct::ClosesAtOnce
            | Conduct::Error
            | Conduct::NoContent
            | Conduct::Redirect => unreachable!("these do not get as far as a document"),
        }
    }

    /// The documents in an answer about plans.
    fn plans(&self) -> Vec<Vec<u8>> {
        let plan = self.quorum.agreed().plan.clone();
        let certified = |plan: &Plan| vec![sealed_plan(plan)];
        match (self.conduct, plan) {
            (Conduct::NoPlan, _) | (_, None) => Vec::new(),
            (Conduct::OldPlan, Some(plan)) => {
                certified(&Plan { seq: Cycle::new(36), desired: slots(9), ..plan })
            }
            (Conduct::OtherTargetsPlan, Some(plan)) => {
                certified(&Plan { target: TargetId::new("other").expect("a valid name"), ..plan })
            }
            (Conduct::UnsignedPlan, Some(plan)) => {
                vec![seal(PLAN_TYPE, plan.to_bytes(), &replica_keys()[..1])]
            }
            (_, Some(_)) => self.quorum.plan_envelope().into_iter().collect(),
        }
    }

    /// Lies that are told below the documents, in answer to all questions.
    fn transport_lie(&self, stream: &mut TcpStream) -> Option<io::Result<()>> {
        let chunked =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        Some(match self.conduct {
            Conduct::EndlessBody => {
                let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                endless(stream, chunked, &chunk, Duration::ZERO)
            }
            Conduct::SlowBody => endless(stream, chunked, "1\r\n \r\n", Duration::from_millis(100)),
            Conduct::EndlessInterim => {
                endless(stream, "", "HTTP/1.1 100 Continue\r\n\r\n", Duration::from_millis(1))
            }
            Conduct::SlowHead => endless(stream, "HTTP/1.1 200 ", "O", Duration::from_millis(200)),
            Conduct::EndlessHeaders => endless(
                stream,
                "HTTP/1.1 200 OK\r\n",
                &format!("x: {}\r\n", "x".repeat(4096)),
                Duration::ZERO,
            ),
            Conduct::Silent => endless(stream, "", "", SLOT),
            Conduct::Garbage => closing(stream, "\u{1}\u{2}\u{3} this is not HTTP\r\n\r\n"),
            Conduct::ClosesMidway => closing(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"heads\":[",
            ),
            Conduct::ClosesAtOnce => closing(stream, ""),
            Conduct::Html => json(stream, "200 OK", "<html>\u{1b}[2J</html>"),
            Conduct::OtherJson => json(stream, "200 OK", r#"{"heads":[],"more":1.5}"#),
            Conduct::Error => json(stream, "500 Internal Server Error", &"x".repeat(10_000)),
            Conduct::NoContent => closing(stream, "HTTP/1.1 204 No Content\r\n\r\n"),
            Conduct::Redirect => closing(
                stream,
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
            ),
            Conduct::Honest
            | Conduct::Down
            | Conduct::OldHead
            | Conduct::ForgedHead
            | Conduct::OtherShard
            | Conduct::OtherTargets
            | Conduct::TwoHeads
            | Conduct::OldPlan
            | Conduct::OtherTargetsPlan
            | Conduct::UnsignedPlan
            | Conduct::NoPlan => return None,
        })
    }
}

fn number_in(path: &str, name: &str) -> u64 {
    let text = path.split(name).nth(1).unwrap_or_default();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

/// Answers with JSON.
pub(crate) fn json(stream: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())
}

/// Says this and breaks off.
fn closing(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Both)
}

/// Says the same again and again until the other side has had enough.
fn endless(stream: &mut TcpStream, first: &str, again: &str, pause: Duration) -> io::Result<()> {
    stream.write_all(first.as_bytes())?;
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        stream.write_all(again.as_bytes())?;
        thread::sleep(pause);
        // The other side's end is seen by reading, also when there is nothing to write.
        match stream.read(&mut [0]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The next request on a connection; `None` at its end.
pub(crate) fn read_request(stream: &mut TcpStream) -> io::Result<Option<Asked>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut some = [0; 4096];
        let count = stream.read(&mut some)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&some[..count]);
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = usize::try_from(number_in(&head, "content-length: ")).unwrap_or_default();
    let mut body = bytes.split_off(end);
    let already = body.len();
    body.resize(length.max(already), 0);
    stream.read_exact(&mut body[already..])?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some(Asked { path, body }))
}
