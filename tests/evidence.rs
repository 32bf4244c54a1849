//! A replica that votes twice, in a cluster of real processes: what the others make of it, and what of that a stranger
//! can verify.
//!
//! Invariant: every wait is for a condition, none is for a time.
#![cfg(feature = "service")]

#[expect(dead_code, reason = "these tests need a part of it")]
mod harness;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use harness::{
    adversaries,
    cluster::{Cluster, Options, REPLICAS, quorate},
    http,
};
use quorate::{
    knowledge::evidence::EvidenceKind,
    service::{
        config::{ReplicaConfig, ReplicaFlags},
        founding::Layout,
        status::EvidenceStatus,
    },
};
use sqlx::{Connection as _, PgConnection};

#[test]
fn a_replica_that_votes_twice_is_proven_everywhere_and_its_proof_verifies_offline() {
    let mut adversary = Command::new(adversaries::program());
    let mut cluster = Cluster::start(&Options { no_agents: true, ..Options::default() });
    let engine = cluster.engine();
    cluster.told("r0", "window_final", |told| told["reports"] == REPLICAS);
    // An honest restart before: it makes no evidence.
    cluster.kill(&[2]);
    cluster.restart(2);
    cluster.kill(&[3]);
    adversary.arg("double-voter").arg("--config").arg(cluster.replica_file(3));
    cluster.put_in_place(3, adversary);

    let proven = (0..3).map(|place| cluster.eventually("evidence in the status", || first(&cluster, place)));
    let proven: Vec<EvidenceStatus> = proven.collect();
    for proof in &proven {
        assert_eq!((proof.replica.as_str(), proof.kind), ("r3", EvidenceKind::DoubleVote));
        assert_eq!(proof, &proven[0], "all replicas log the same");
    }
    let all = cluster.status(0).expect("it runs").evidence;
    assert!(all.iter().all(|proof| proof.replica == "r3"), "nobody else is named: {all:?}");
    let digest = proven[0].digest.to_string();
    cluster.told("r1", "evidence", |told| told["digest"] == digest.as_str() && told["offender"] == "r3");
    let metrics = http::get(cluster.http(0), "/metrics").expect("it answers");
    let metrics = String::from_utf8(metrics).expect("it is text");
    let counted =
        metrics.lines().find(|line| line.starts_with("quorate_evidence_total{kind=\"double_vote\"}"));
    assert!(counted.is_some(), "{metrics}");

    let listed = evidence(&cluster, &["list", "--replica", &format!("http://{}", cluster.http(1))]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&digest), "{listed:?}");
    let shown = evidence(&cluster, &["show", &digest, "--replica", &format!("http://{}", cluster.http(1))]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let stored = cluster.eventually("the proof in Postgres", || stored(&cluster, 0, &digest));
    assert_eq!(stored, shown.stdout, "the document is the same wherever it is kept");
    drop(engine);
    cluster.end_replicas();

    let file = cluster.folder().join("evidence.json");
    assert_eq!(verified(&cluster, &file, &stored), Some(0));
    for at in [1, stored.len() / 3, stored.len() / 2, stored.len() - 2] {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        assert_eq!(verified(&cluster, &file, &changed), Some(4), "byte {at} was changed");
    }
}

/// The first proof of a double vote that a replica names.
fn first(cluster: &Cluster, place: usize) -> Option<EvidenceStatus> {
    let proofs = cluster.status(place)?.evidence;
    proofs.into_iter().find(|proof| proof.kind == EvidenceKind::DoubleVote)
}

/// Runs a part of `quorate evidence`.
fn evidence(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = quorate();
    command.current_dir(cluster.folder()).arg("evidence").args(words);
    command.output().expect("the command runs")
}

/// The exit code of verifying these bytes, without any replica.
fn verified(cluster: &Cluster, file: &Path, document: &[u8]) -> Option<i32> {
    fs::write(file, document).expect("the folder is ours");
    let root = Layout::of(cluster.folder().to_owned()).root();
    let words = ["verify", &file.display().to_string(), "--root", &root.display().to_string()];
    evidence(cluster, &words).status.code()
}

/// The document as a replica's database holds it.
fn stored(cluster: &Cluster, place: usize, digest: &str) -> Option<Vec<u8>> {
    let flags = ReplicaFlags { config: Some(cluster.replica_file(place)), ..ReplicaFlags::default() };
    let config = ReplicaConfig::resolve(flags).expect("the replica runs with it");
    let url = config.database.expect("the cluster has databases");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url.reveal()).await.ok()?;
        let document = sqlx::query_scalar::<_, Vec<u8>>(
            "SELECT document FROM evidence WHERE encode(digest, 'hex') = $1 AND offender = 3 AND kind = 'double_vote'",
        );
        document.bind(digest).fetch_optional(&mut connection).await.ok()?
    })
}
