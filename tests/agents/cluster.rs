//! Agents of a real cluster, one of whose addresses answers for ever with what was true once.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    thread,
};

use quorate::{
    knowledge::receipt::Outcome,
    service::{founding::Layout, key_file::read_secret_key},
    types::TargetId,
};
use serde_json::Value;

use crate::{
    harness::{
        cluster::{Cluster, Options, REPLICAS, TARGET},
        http,
    },
    processes::Site,
    replica::{json, read_request},
};

/// Serves this answer to every question for heads, and knows no plan; its address.
fn replay(heads: String) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), heads) = (stream, heads.clone()) else { return };
            thread::spawn(move || -> io::Result<()> {
                while let Some(asked) = read_request(&mut stream)? {
                    let is_heads = asked.path.starts_with("/v1/heads");
                    json(&mut stream, "200 OK", if is_heads { &heads } else { r#"{"plans":[]}"# })?;
                }
                Ok(())
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn two_agents_of_a_real_cluster_act_once_in_effect_though_one_address_replays_what_was_true_once() {
    let cluster = Cluster::start(&Options::default());
    let engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["series"] == 1 && told["reports"] == REPLICAS);
    let first = cluster.eventually("a first head", || {
        let answer = http::get(cluster.http(0), "/v1/heads?shard=0&after=0&wait=1")?;
        let text = String::from_utf8(answer).ok()?;
        let heads: Value = serde_json::from_str(&text).ok()?;
        heads["heads"].as_array().filter(|heads| !heads.is_empty()).map(|_| text)
    });
    let layout = Layout::of(cluster.folder().to_owned());
    let target = TargetId::new(TARGET).expect("a valid name");
    let root = fs::read(layout.root()).expect("the cluster was founded");
    let key = read_secret_key(&layout.agent_key(&target)).expect("the cluster was founded");
    let site = Site::of(TARGET, &root, &key);
    let mut addresses = vec![replay(first)];
    addresses.extend((0..3).map(|place| format!("http://{}", cluster.http(place))));
    let agents = ["one", "two"].map(|name| site.agent(name, &addresses));
    engine.wait_for_slots(30);

    for agent in &agents {
        let receipt = site.eventually("a receipt", || site.receipt(agent));
        assert!(matches!(receipt.outcome, Outcome::Applied {} | Outcome::Noop {}), "{receipt:?}");
        site.eventually("the replay to be counted", || {
            site.told(agent, "replica_fault", |told| {
                told["replica"] == addresses[0].as_str() && told["kind"] == "old_head"
            })
        });
    }
    let mut once = site.changes();
    once.dedup();
    assert_eq!(once, site.changes(), "no change was made twice");
    assert!(!once.is_empty());
    for agent in agents {
        agent.stop(&site);
    }
}
