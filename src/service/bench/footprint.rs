//! What a whole cluster costs while it stands: processors and memory of each of its processes.
//!
//! Postgres is not counted. Invariant: a process that ended is an error, never a zero.

use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio::time::Instant;

use super::{
    Usage, UsageError,
    ingest::{self, IngestBenchError},
};
use crate::service::dev::{Asked, DevCluster, DevConfig, DevError, DevFolder, Shown};

/// How long before anything is counted: start-up is over, and the first windows are closed.
const SETTLING: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Clone, Debug)]
pub struct FootprintSetting {
    /// Where the cluster lies. It must be new.
    pub folder: PathBuf,
    /// How many replicas.
    pub replicas: u16,
    /// The first of the replicas' ports.
    pub base_port: u16,
    /// The relay's port.
    pub otlp_port: u16,
    /// How long.
    pub measure: Duration,
    /// Whether every series of [`ingest::SERIES`] is posted once in each window.
    pub telemetry: bool,
}

/// What a process used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// The process.
    pub process: String,
    /// How much of one processor it kept busy, in percent.
    pub core_percent: f64,
    /// Its resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// The most that was resident, in bytes.
    pub peak_bytes: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum FootprintError {
    /// The cluster does not start.
    #[error(transparent)]
    Cluster(#[from] DevError),
    /// A process.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The relay.
    #[error(transparent)]
    Telemetry(#[from] IngestBenchError),
}

/// Starts a cluster with the default policies and agents, and measures its processes.
///
/// # Errors
/// [`FootprintError`].
pub async fn measure_footprint(setting: &FootprintSetting) -> Result<Vec<Footprint>, FootprintError> {
    let folder = DevFolder::take(&setting.folder).map_err(DevError::from)?;
    let config = DevConfig {
        asked: Asked {
            replicas: Some(setting.replicas),
            base_port: Some(setting.base_port),
            otlp_port: Some(setting.otlp_port),
            ..Asked::default()
        },
        otlp_traces: None,
        agents: true,
    };
    let (mut processes, mut otlp) = (BTreeMap::new(), String::new());
    let (_never, interrupted) = tokio::sync::watch::channel(false);
    let mut cluster = DevCluster::start(folder, config, interrupted, &mut |shown| {
        if let Shown::Ready(info) = shown {
            (processes, otlp) = (info.processes, info.otlp);
        }
    })
    .await?;
    let posting = async {
        match setting.telemetry {
            true => ingest::post_every_window(&format!("{otlp}/v1/metrics")).await,
            false => std::future::pending().await,
        }
    };
    let measured = tokio::select! {
        measured = measure(setting.measure, &mut cluster, &processes) => measured,
        failed = posting => failed.map(|never| match never {}).map_err(FootprintError::from),
    };
    cluster.end(&mut |_| {}).await;
    measured
}

async fn measure(
    measure: Duration,
    cluster: &mut DevCluster,
    processes: &BTreeMap<String, u32>,
) -> Result<Vec<Footprint>, FootprintError> {
    pass(cluster, SETTLING).await;
    let began = Instant::now();
    let before = processes.values().map(|id| Usage::of(*id)).collect::<Result<Vec<_>, _>>()?;
    pass(cluster, measure).await;
    let mut footprints = Vec::new();
    for ((process, id), before) in processes.iter().zip(before) {
        let usage = Usage::of(*id)?;
        let busy = usage.processor.saturating_sub(before.processor);
        footprints.push(Footprint {
            process: process.clone(),
            core_percent: 100.0 * busy.as_secs_f64() / began.elapsed().as_secs_f64(),
            resident_bytes: usage.resident_bytes,
            peak_bytes: usage.peak_bytes,
        });
    }
    Ok(footprints)
}

/// Lets time pass; what the processes say meanwhile is read, or they would wait for it.
async fn pass(cluster: &mut DevCluster, time: Duration) {
    let until = Instant::now() + time;
    while tokio::time::timeout_at(until, cluster.next()).await.is_ok() {}
}
