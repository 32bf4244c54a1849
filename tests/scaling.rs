//! The shipped scaling policy over real arrivals: what it costs and how it serves, beside what others cost. Everything
//! is on virtual time, so the figures are the same on every machine.
#![cfg(feature = "service")]

use std::{io::Read, path::Path, sync::Arc};

use flate2::read::GzDecoder;
use quorate::{
    backtest::{
        Ended, OWNER, Settings, agent_key,
        arrivals::{Job, Work, parse},
        baseline::{Measured, TargetTracking, World},
        queue::{Queue, QueueSettings},
        run,
    },
    knowledge::genesis::Genesis,
    service::config::{Completion, PolicyFile},
    types::{Millis, TargetId},
};

/// What four replicas scale: the first five minutes, with a burst after idle ones.
const SHORT_MS: u64 = 5 * 60 * 1000;
const INITIAL: u32 = 5;
const BOUNDS: (u32, u32) = (1, 200);

fn genesis() -> Genesis {
    let text = include_str!("../examples/policies/scaling.toml");
    let file = PolicyFile::parse("scaling.toml", text).expect("the example is valid");
    let completion = Completion {
        agents: file.targets().map(|target| (target.clone(), agent_key(target).public())).collect(),
        owner: Some(OWNER.to_owned()),
    };
    file.genesis(&completion).expect("every target is complete")
}

fn arrivals(name: &str) -> Arc<[Job]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/traces").join(name);
    let packed = std::fs::read(path).expect("the trace is in the repository");
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("it is gzip");
    let work = Work {
        base_us: 0,
        per: vec![("ContextTokens".to_owned(), 500), ("GeneratedTokens".to_owned(), 30_000)],
    };
    parse(&text, &work).expect("the trace is sound").into()
}

fn world(jobs: Arc<[Job]>) -> World {
    World {
        settings: QueueSettings { start_up: Millis::from_secs(60), wait_bound: Millis::from_secs(120) },
        target: TargetId::new("workers").expect("a valid name"),
        jobs,
        step: Millis::from_secs(1),
        at_most: Millis::from_secs(2 * 3600),
    }
}

/// What the shipped policy comes to, through the whole loop.
fn shipped(world: &World, replicas: usize) -> Measured {
    let mut queue = Queue::new(world.settings, world.target.clone(), Arc::clone(&world.jobs), INITIAL);
    let settings = Settings { replicas, step: world.step, at_most: world.at_most };
    let finished = run(&genesis(), settings, &mut queue, &mut |_| {}).expect("the settings are sound");
    assert_eq!(finished.ended, Ended::Done);
    Measured {
        account: queue.account(),
        totals: *queue.totals(),
        is_done: queue.is_done(),
        ended_ms: finished.after.as_millis(),
    }
}

#[test]
fn the_shipped_policy_serves_better_for_less_than_target_tracking_on_each_trace() {
    for trace in ["azure-llm-2023-code.csv.gz", "azure-llm-2023-conv.csv.gz"] {
        let world = world(arrivals(trace));
        let own = shipped(&world, 1);
        assert_eq!(own.account.violation_minutes, 0, "{trace}");
        for percent in [70, 80, 90] {
            let mut rule = TargetTracking::new(percent, INITIAL, BOUNDS);
            let other = world.measure(INITIAL, &mut rule);
            assert!(other.is_done);
            assert!(other.account.violation_minutes > 0, "{trace}, {percent} %");
            let (cost, others) = (own.account.worker_ms, other.account.worker_ms);
            assert!(cost < others, "{trace}, {percent} %: {cost} is not less than {others}");
        }
    }
}

#[test]
fn four_replicas_scale_as_one_does() {
    let mut world = world(arrivals("azure-llm-2023-code.csv.gz"));
    world.jobs = world.jobs.iter().copied().filter(|job| job.at_ms < SHORT_MS).collect();
    let (one, four) = (shipped(&world, 1), shipped(&world, 4));
    assert_eq!((one.is_done, four.is_done), (true, true));
    let apart = one.account.worker_ms.abs_diff(four.account.worker_ms);
    assert!(apart * 20 < one.account.worker_ms, "they differ by the time of a certificate: {apart} ms");
}
