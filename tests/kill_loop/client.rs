//! An operator who never rests: it stops a target and resumes it, through whichever replica answers, and remembers what
//! it was told is committed.
//!
//! Invariant: its thread ends with its handle, which gives what was acknowledged.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use quorate::{
    knowledge::{
        operator_request::{OperatorRequest, Request, Selection, StopMode},
        root::VerifiedRoot,
    },
    service::{clock::wall_clock, founding::Layout, key_file::read_secret_key},
    types::{Digest, SecretKey, TargetId, UnixMillis},
};
use serde_json::Value;

use crate::harness::{cluster::TARGET, http};

/// What a replica said is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) digest: Digest,
    pub(crate) height: u64,
}

/// The operator at work.
#[derive(Debug)]
pub(crate) struct Client {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Acknowledged>>,
}

impl Client {
    /// Begins to ask these replicas of the cluster in the folder.
    pub(crate) fn start(folder: &Path, replicas: Vec<SocketAddr>) -> Self {
        let layout = Layout::of(folder.to_owned());
        let key = read_secret_key(&layout.operator_key(0)).expect("it was written");
        let root = std::fs::read(layout.root()).expect("the cluster is founded");
        let root = VerifiedRoot::first(&root).expect("the cluster runs with it");
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let (mut acknowledged, mut stopped) = (Vec::new(), 0);
            for (counter, place) in (1..).zip((0..replicas.len()).cycle()) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let what = if counter % 2 == 1 {
                    stopped = counter;
                    stop()
                } else {
                    resume(&key, stopped)
                };
                let request = request(&root, counter, what);
                acknowledged.extend(ask(&request, &key, replicas[place]));
            }
            acknowledged
        });
        Self { ended, thread }
    }

    /// Ends it; everything that was acknowledged.
    pub(crate) fn end(self) -> Vec<Acknowledged> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only asks")
    }
}

fn targets() -> Selection {
    Selection::These([TargetId::new(TARGET).expect("a valid name")].into())
}

fn stop() -> Request {
    Request::Stop { targets: targets(), mode: StopMode::Hold }
}

/// Lifts the operator's own stop with this counter, and those before.
fn resume(key: &SecretKey, stopped: u64) -> Request {
    Request::Resume { targets: targets(), seen: [(key.public().id(), stopped)].into() }
}

fn request(root: &VerifiedRoot, counter: u64, request: Request) -> OperatorRequest {
    OperatorRequest {
        v: 1,
        cluster: root.committee().cluster(),
        epoch: root.committee().epoch(),
        counter,
        expires_at: UnixMillis::new(wall_clock().as_millis() + 240_000),
        request,
    }
}

/// Hands the request to one replica, and asks it what became of it; nothing when it is killed meanwhile.
fn ask(request: &OperatorRequest, key: &SecretKey, replica: SocketAddr) -> Option<Acknowledged> {
    let Some((202, _)) = http::post(replica, "/v1/operator-requests", &request.sign(key).to_json()) else {
        // Nobody is there, or its queue is full: the next one is asked.
        std::thread::sleep(std::time::Duration::from_millis(20));
        return None;
    };
    let digest = Digest::of(&request.to_bytes());
    let answer = http::get(replica, &format!("/v1/operator-requests/{digest}?wait=1"))?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    (answer["status"] == "committed").then_some(())?;
    Some(Acknowledged { digest, height: answer["height"].as_u64()? })
}
