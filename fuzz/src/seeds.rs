//! The seeds of the corpora: real encodings of everything, and scripts that reach far. What fuzzing found beyond them
//! lies beside them in `fuzz/corpus`.
//!
//! Invariant: the same seeds in every process.

use std::{collections::VecDeque, path::Path};

use bytes::Bytes;
use quorate::{
    consensus::{
        Command as Ordered, Config, Core, Input, Message, Output, Record, Recovery, Snapshot, ViewTimes,
        certify::{Subject, SubjectKind},
        task,
        transport::{Frame, Greeting, Hello, Process},
    },
    cycle::Seal,
    execute::agent::AgentState,
    knowledge::{
        command::{Command, EncodedCommand},
        evidence::VerifiedEvidence,
        head::HEAD_TYPE,
        observation::Tick,
        plan::PLAN_TYPE,
        root::ROOT_TYPE,
    },
    monitor::recording::{self, RecordedRequest},
    service::config::{POLICY_EXAMPLE, REPLICA_EXAMPLE},
    types::{Digest, Millis, UnixMillis, WindowIndex},
};
use serde_json::json;

use crate::{
    commands::{BEGIN, Log, blocks_of, head, new_cycle, plan, receipt, report, stop},
    evidence::{double_vote, invalid_certificate},
    messages::endorsement,
    script::Script,
    telemetry::NOW,
    world::{POLICIES, REPLICAS, WORLD, place, sealed},
};

/// A seed: its target's name, its own, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// How many messages and records of each kind are kept: the first ones differ most.
const OF_EACH_KIND: usize = 2;

/// The most bytes of an OTLP body among the seeds.
const MOST_BODY_BYTES: usize = 5_000;

/// All seeds.
#[must_use]
pub fn all() -> Vec<Seed> {
    let parts = [links(), disks(), documents(), commands(), telemetry(), files(), scripts()];
    parts.into_iter().flatten().collect()
}

fn seed(target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Seed {
    (target, name.into(), bytes.into())
}

fn encoded(value: &impl borsh::BorshSerialize) -> Vec<u8> {
    borsh::to_vec(value).expect("memory takes all")
}

/// Bytes as a script reads them: their length, then they.
fn measured(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("seeds are small");
    [length.to_le_bytes().as_slice(), bytes].concat()
}

fn links() -> Vec<Seed> {
    let run = Run::of_a_few_views();
    let subject = Subject { kind: SubjectKind::Plan, number: 3, of: "pool".to_owned() };
    let endorsement = endorsement(subject, b"1", 1, &WORLD.replicas[1]);
    let first = run.messages.first().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
    let pong = Frame::Pong { number: 7, time: UnixMillis::new(BEGIN) };
    let sent = [
        Frame::Hello(Greeting {
            hello: Hello::of(WORLD.committee()),
            process: Process::numbered(1),
            met: Some(Process::numbered(2)),
        }),
        Frame::Ping { number: 7 },
        pong,
        Frame::Data(Bytes::from(first)),
    ];
    let mut seeds = vec![
        seed("frames", "connection", sent.iter().flat_map(Frame::to_bytes).collect::<Vec<_>>()),
        seed("frames", "empty-data", Frame::Data(Bytes::new()).to_bytes()),
        seed("messages", "endorsement", encoded(&task::Frame::Endorsement(endorsement.clone()))),
        seed(
            "endorsements",
            "received",
            [b"\x01\x03\x00\x00\x03".as_slice(), &measured(&encoded(&endorsement))].concat(),
        ),
    ];
    seeds.extend(run.messages.into_iter().map(|(name, bytes)| seed("messages", name, bytes)));
    seeds
}

fn disks() -> Vec<Seed> {
    let run = Run::of_a_few_views();
    let tick = tick();
    let seals = [
        Seal::Report { window: WindowIndex::new(100), head: tick.head, body: tick.body },
        Seal::Endorsed {
            subject: Subject { kind: SubjectKind::Head, number: 3, of: "0".to_owned() },
            digest: Digest::of(b"head"),
        },
    ];
    let notes: Vec<u8> = seals.iter().flat_map(|seal| measured(&encoded(seal))).collect();
    let history: Vec<u8> =
        run.records.iter().take(40).flat_map(|record| measured(&encoded(record))).collect();
    vec![
        seed("records", "notes", notes),
        seed("records", "history", history),
        seed(
            "segments",
            "whole",
            [&[20], [1, 9, b'e', b'n', b't', b'r', b'y', b' ', b'1', b'2', b'3', 1].repeat(20).as_slice()]
                .concat(),
        ),
        seed(
            "segments",
            "changed",
            [&[3], [2, 1, 0, 1].repeat(3).as_slice(), &[0, 9, 0, 200, 0, 4, 8]].concat(),
        ),
    ]
}

/// What four honest replicas say and write while they order a few commands, with one view timed out.
struct Run {
    messages: Vec<(String, Vec<u8>)>,
    records: Vec<Record>,
}

impl Run {
    fn of_a_few_views() -> Self {
        let config = |me: usize| Config {
            committee: std::sync::Arc::new(WORLD.committee().clone()),
            me: place(me),
            key: WORLD.replicas[me].clone(),
            times: ViewTimes::default(),
            checkpoint_interval: 2,
        };
        let mut cores: Vec<Core> = (0..REPLICAS).map(|me| Recovery::new(config(me)).finish()).collect();
        let mut run = Self { messages: Vec::new(), records: Vec::new() };
        let mut underway: VecDeque<(usize, usize, Message)> = VecDeque::new();
        for round in 0..6_u8 {
            let now = Millis::from_secs(u64::from(round) * 20);
            let command = Ordered::new(vec![round], vec![b'x'; 8]).expect("it is small");
            let _ = cores[usize::from(round) % REPLICAS].handle(now, Input::Submit(command));
            for (me, core) in cores.iter_mut().enumerate() {
                run.carry_out(me, core, &mut underway);
            }
            if round == 3 {
                // Whatever was underway is lost, and the view ends for all of them.
                underway.clear();
                for (me, core) in cores.iter_mut().enumerate() {
                    let _ = core.handle(now.plus(Millis::from_secs(10)), Input::Timer);
                    run.carry_out(me, core, &mut underway);
                }
            }
            for _ in 0..2_000 {
                let Some((from, to, message)) = underway.pop_front() else { break };
                let _ = cores[to].handle(now, Input::Message { from: place(from), message });
                run.carry_out(to, &mut cores[to], &mut underway);
            }
            underway.clear();
            for (me, core) in cores.iter_mut().enumerate() {
                let _ = core.handle(now, Input::PeerConnected(place((me + 1) % REPLICAS)));
                run.carry_out(me, core, &mut underway);
            }
        }
        run
    }

    fn carry_out(&mut self, me: usize, core: &mut Core, underway: &mut VecDeque<(usize, usize, Message)>) {
        while let Some(output) = core.poll_output() {
            match output {
                Output::Persist(record) | Output::Append(record) if me == 0 => self.records.push(record),
                Output::Send { to, message } => {
                    self.keep(&message);
                    underway.push_back((me, to.as_usize(), message));
                }
                Output::Broadcast(message) => {
                    self.keep(&message);
                    let others = (0..REPLICAS).filter(|other| *other != me);
                    underway.extend(others.map(|to| (me, to, message.clone())));
                }
                Output::Commit(committed) => {
                    let height = committed.block.height();
                    let state = Snapshot::of(&height.number().to_le_bytes()).expect("it is small");
                    let (snapshot, installed) = (state.id(), core.installed());
                    let _ = core.handle(Millis::ZERO, Input::StateAt { height, snapshot, installed });
                }
                Output::Persist(_)
                | Output::Append(_)
                | Output::ServeFromJournal { .. }
                | Output::ServeChunks { .. }
                | Output::Stable { .. }
                | Output::Diverged { .. }
                | Output::Evidence(_)
                | Output::Install { .. } => {}
            }
        }
    }

    fn keep(&mut self, message: &Message) {
        let kind = match message {
            Message::Proposal(_) => "proposal",
            Message::Vote(_) => "vote",
            Message::Timeout(_) => "timeout",
            Message::Certificates(_) => "certificates",
            Message::Commands(_) => "commands",
            Message::BlockRequest(_) => "block-request",
            Message::BlockResponse(_) => "block-response",
            Message::CheckpointVote(_) => "checkpoint-vote",
            Message::Checkpoint(_) => "checkpoint",
            Message::Gone(_) => "gone",
            Message::ChunkRequest(_) => "chunk-request",
            Message::Chunks(_) => "chunks",
            Message::Committed(_) => "committed",
        };
        let kept =
            self.messages.iter().filter(|(name, _)| name.trim_end_matches(char::is_numeric) == kind).count();
        if kept < OF_EACH_KIND {
            self.messages.push((format!("{kind}{kept}"), encoded(&task::Frame::Consensus(message.clone()))));
        }
    }
}

fn documents() -> Vec<Seed> {
    let (plan, agent) = (plan(1, 1), &WORLD.agents[0]);
    let head = head(&plan, 1);
    let (receipt, stop) = (receipt(&plan, 1, agent), stop(1, &WORLD.operators[0]));
    let certified = |kind, body| sealed(kind, body, &WORLD.replicas[..3]);
    let (plan_envelope, head_envelope) =
        (certified(PLAN_TYPE, plan.to_bytes()), certified(HEAD_TYPE, head.to_bytes()));
    let list =
        |name: &str, envelope: &[u8]| format!("{{\"{name}\":[{}]}}", String::from_utf8_lossy(envelope));
    let body_of = |envelope: &[u8]| {
        quorate::types::Envelope::from_json(envelope).expect("it is one").unverified_body().to_vec()
    };
    let body = |kind: u8, body: Vec<u8>| [&[kind], body.as_slice()].concat();
    let state = AgentState::new(WORLD.committee().cluster(), WORLD.target(1));
    let (key, signature) = (agent.public().to_bytes(), agent.sign(b"message"));
    let proven = VerifiedEvidence::verify(double_vote(1, 7), WORLD.committee()).expect("it is proven");
    // View, height and block of a certificate without signatures, and no timeout certificate.
    let certificates = encoded(&(3_u64, 2_u64, Digest::of(b"block"), 0_u32, false));
    // Two votes of the first replica for different blocks in view 1.
    let vote = |block: u8| {
        [&[2, 1], measured(&[&[1], [0; 15].as_slice(), &[block; 32]].concat()).as_slice()].concat()
    };
    let votes = [[2, 0, 1].as_slice(), &vote(1), &vote(2)].concat();
    let key_and_signature = [key.as_slice(), signature.as_bytes(), b"message"];
    vec![
        seed("answers", "heads", list("heads", &head_envelope)),
        seed("answers", "plans", list("plans", &plan_envelope)),
        seed("answers", "agent-state", state.to_bytes()),
        seed("answers", "signature", key_and_signature.concat()),
        seed("documents", "plan", body(0, plan.to_bytes())),
        seed("documents", "head", body(1, head.to_bytes())),
        seed("documents", "receipt", body(2, body_of(&receipt))),
        seed("documents", "stop", body(3, body_of(&stop))),
        seed("documents", "root", body(4, WORLD.root.root().to_bytes())),
        seed("evidence", "document", [&[0], proven.to_json().as_slice()].concat()),
        seed("evidence", "encoded", [&[1], encoded(proven.evidence()).as_slice()].concat()),
        seed(
            "evidence",
            "certificate",
            [&[1], encoded(&invalid_certificate(2, certificates)).as_slice()].concat(),
        ),
        seed("evidence", "signed", votes),
        seed("envelopes", "plan", plan_envelope),
        seed("envelopes", "head", head_envelope),
        seed("envelopes", "receipt", receipt),
        seed("envelopes", "stop", stop),
        seed("envelopes", "root", sealed(ROOT_TYPE, WORLD.root.root().to_bytes(), &WORLD.owners)),
    ]
}

fn tick() -> EncodedCommand {
    let tick = Tick { replica: place(0), signed_at: UnixMillis::new(BEGIN) };
    Command::Tick(tick.sign(&WORLD.committee().domain(0), &WORLD.replicas[0])).encode()
}

fn commands() -> Vec<Seed> {
    let plan = plan(1, 1);
    let one = |name: &str, command: EncodedCommand| {
        seed("commands", name, [measured(&command.head), command.body].concat())
    };
    let report = report(0, WindowIndex::new(100), BEGIN + 12_000, false, crate::commands::example_summary());
    let envelope = sealed(PLAN_TYPE, plan.to_bytes(), &WORLD.replicas[..3]);
    vec![
        one("tick", tick()),
        one("report", report.encode()),
        one("certified", Command::Certified { envelope }.encode()),
        one("receipt", Command::Receipt { envelope: receipt(&plan, 1, &WORLD.agents[0]) }.encode()),
        one("evidence", Command::Evidence(double_vote(1, 7)).encode()),
        one("stop", Command::OperatorRequest { envelope: stop(1, &WORLD.operators[0]) }.encode()),
    ]
}

fn telemetry() -> Vec<Seed> {
    let mut seeds = vec![
        seed("otlp", "gauge", [b"\x01".as_slice(), &gauge()].concat()),
        seed("otlp_compressed", "gauge", [b"\x01\x01\x00".as_slice(), &gauge()].concat()),
        seed("recordings", "two", packed(&[request(1, gauge()), request(2, Vec::new())])),
        seed("recordings", "none", packed(&[])),
    ];
    let recorded: &[(&str, &[u8])] = &[
        ("sdk", include_bytes!("../../tests/data/otlp-sdk.otlp.gz")),
        ("temporal", include_bytes!("../../tests/data/temporal-delta.otlp.gz")),
    ];
    for (name, packed) in recorded {
        let requests = recording::parse(Path::new(name), *packed).expect("it is a recording");
        let small =
            requests.iter().filter(|request| request.body.len() < MOST_BODY_BYTES && request.is_metrics());
        // One of each size class and kind is enough: fuzzing finds what lies between.
        for request in small.step_by(9) {
            let form = u8::from(request.content_type.as_deref().is_some_and(|kind| kind.contains("json")));
            let name = format!("{name}{}", request.n);
            seeds.push(match request.content_encoding.as_deref() {
                Some("gzip") => {
                    seed("otlp_compressed", name, [&[form, 1, 1], request.body.as_slice()].concat())
                }
                Some("deflate") => {
                    seed("otlp_compressed", name, [&[form, 0, 1], request.body.as_slice()].concat())
                }
                Some(_) | None => seed("otlp", name, [&[form], request.body.as_slice()].concat()),
            });
        }
    }
    let written = include_bytes!("../../tests/data/prometheus-remote-write.gz").as_slice();
    let written = recording::parse(Path::new("written"), written).expect("it is a recording");
    seeds.extend(written.iter().step_by(5).map(|request| {
        seed("remote_write", format!("prometheus{}", request.n), [&[0], request.body.as_slice()].concat())
    }));
    seeds.push(seed("remote_write", "plain", [&[1], written_series().as_slice()].concat()));
    seeds.push(seed("samples", "each-kind", plain_samples()));
    seeds.push(seed("samples", "none", r#"{"source":"engine","samples":[]}"#));
    seeds
}

/// A `WriteRequest` with one sample now, of a series that rises, and an end of the same.
fn written_series() -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("a seed is small");
        [&[tag, length], bytes].concat()
    };
    let label = |name: &str, value: &str| {
        field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())].concat())
    };
    let sample = |bits: u64| {
        let time = (0..6).map(|place| {
            let more = if place < 5 { 0x80 } else { 0 };
            u8::try_from((NOW.as_millis() >> (7 * place)) & 0x7f).expect("seven bits") | more
        });
        let time: Vec<u8> = time.collect();
        field(0x12, &[&[0x09], bits.to_le_bytes().as_slice(), &[0x10], &time].concat())
    };
    let labels = [label("__name__", "runs_total"), label("job", "engine"), label("le", "5")];
    let samples = [sample(30.0_f64.to_bits()), sample(0x7ff0_0000_0000_0002)];
    field(0x0a, &[labels.concat(), samples.concat()].concat())
}

fn plain_samples() -> Vec<u8> {
    let sample = |kind: &str, value: serde_json::Value| {
        json!({"name": "queue", "at_ms": NOW.as_millis(), "value": value, "kind": kind,
            "attributes": {"pool": "extract", "shard": 3, "eager": true}})
    };
    let samples =
        [sample("gauge", json!(12.5)), sample("counter", json!("7.25")), sample("increase", json!(3))];
    json!({"source": "engine", "samples": samples}).to_string().into_bytes()
}

fn gauge() -> Vec<u8> {
    let nanos = u128::from(NOW.as_millis()) * 1_000_000;
    let point = json!({
        "attributes": [{"key": "pool_name", "value": {"stringValue": "extract_pool"}}],
        "timeUnixNano": nanos.to_string(),
        "asInt": "30",
    });
    let metric = json!({"name": "queue", "gauge": {"dataPoints": [point]}});
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "engine"}}]},
        "scopeMetrics": [{"metrics": [metric]}],
    }]});
    request.to_string().into_bytes()
}

fn request(n: u64, body: Vec<u8>) -> RecordedRequest {
    RecordedRequest {
        n,
        received_at_ms: n * 10,
        path: "/v1/metrics".to_owned(),
        content_type: Some("application/json".to_owned()),
        content_encoding: None,
        body,
        notes: serde_json::Map::new(),
    }
}

fn packed(requests: &[RecordedRequest]) -> Vec<u8> {
    let mut bytes = Vec::new();
    recording::pack(requests, &mut bytes).expect("memory takes all");
    bytes
}

fn files() -> Vec<Seed> {
    vec![
        seed("policies", "example", POLICY_EXAMPLE),
        seed("policies", "world", POLICIES),
        seed("policies", "airflow", include_str!("../../examples/policies/airflow.toml")),
        seed("configuration", "example", REPLICA_EXAMPLE),
        seed("configuration", "least", "data_dir = \"d\"\nlisten = \"127.0.0.1:1\"\npeers = [\"a:1\"]\n"),
    ]
}

/// Scripts: what their bytes choose stands in the targets.
fn scripts() -> Vec<Seed> {
    let begin: &[u8] = &[5, 1, 1, 1, 1];
    // Windows with one series each: `queue` of `engine`, without attributes, a level of 100.
    let window: &[u8] = &[6, 1, 0, 0, 0, 9, 3, 3, 100, 0, 0];
    let plan: &[u8] = &[9, 1, 0, 1, 1, 1, 1, 12, 0, 1, 0, 1, 8, 1];
    let stop: &[u8] = &[12, 3, 1, 0, 0, 1, 1, 0];
    let proven: &[u8] = &[13, 1, 7, 13, 1, 7, 13, 1, 8];
    let resume: &[u8] = &[12, 3, 1, 0, 2, 1, 1, 0];
    let receipt: &[u8] = &[11, 1, 1, 0];
    let replayed: &[u8] = &[2, 0, 3, 1, 0, 10, 0, 4, 7];
    let busy =
        [begin, window, plan, receipt, window, stop, plan, resume, proven, window, plan, replayed].concat();
    let quiet = [begin, window, window, &[0, 200], begin, window, &[8, 1, 1, 1, 1, 0, 0, 2], window].concat();
    let (mut cycle, mut log) = (new_cycle(0), Log::new());
    drop(blocks_of(&mut log, &mut Script::new(&busy), &mut cycle, usize::MAX));
    let views: Vec<u8> =
        (0..24_u8).flat_map(|step| [3 + step % 5, step % 3, 1 + step % 9, 7, 1, 0, 3, 1]).collect();
    let endorsed: Vec<u8> = (0..24_u8).flat_map(|step| [1, step % 4, 0, 0, step % 6, step % 3]).collect();
    let asked: &[u8] = &[
        0, 1, 1, 7, b's', b'h', b'a', b'r', b'd', b'=', b'0', 0, 0, 0, 1, 1, 1, 11, b't', b'a', b'r', b'g',
        b'e', b't', b'=', b'p', b'o', b'o', b'l', 0, 0, 0, 4, 0, 0, 0, 1, 1, 3, 0, 5, 0, 0, 0, 2, 9, 1,
    ];
    let evidence = VerifiedEvidence::verify(double_vote(1, 1), WORLD.committee()).expect("it is proven");
    let digest = evidence.digest().to_string();
    let proven = [&[8, 1, 0, 0, 0, 0, 0, 9, 1, 0, 64], digest.as_bytes(), &[0, 0, 0]].concat();
    vec![
        seed("snapshots", "busy", [&[20], busy.as_slice(), &[0], quiet.as_slice()].concat()),
        seed("snapshots", "changed", [&[12], busy.as_slice()].concat()),
        seed("snapshot_bytes", "new", new_cycle(0).snapshot()),
        seed("snapshot_bytes", "busy", cycle.snapshot()),
        seed("fold", "busy", busy.clone()),
        seed("fold", "quiet", quiet.clone()),
        seed("cycle", "busy", busy),
        seed("cycle", "quiet", quiet),
        seed("replica", "views", views),
        seed("replica", "timers", [0_u8, 100].repeat(12)),
        seed("endorsements", "mixed", endorsed),
        seed("api", "asked", asked),
        seed("api", "proven", proven),
        seed("api", "posted", [4_u8, 0, 0, 0, 2, 1, 5, 0, 0, 0, 2, 2, 0].repeat(3)),
    ]
}
