//! What operators' commands have in common: the key, the replicas, the signing, and the waiting for the certified end.
//!
//! It wires flags to the service's client and shows what it got. Invariant: success is said only of what is committed,
//! and a mode only as a quorum's signed head shows it.

use serde::Serialize;
use std::{fmt, path::PathBuf, time::Duration};

use super::{ClientFlags, ExitCode, Failure, output::Output, utc::Utc};
use crate::{
    knowledge::{
        certified::Certified,
        head::{Head, Mode},
        operator_request::{OperatorRequest, Request, Selection},
        root::VerifiedRoot,
    },
    service::{
        clock::wall_clock,
        key_file::read_secret_key,
        operator_client::{OperatorClient, OperatorClientError},
    },
    types::{Digest, HeadNumber, Height, Millis, Shard, TargetId, UnixMillis},
};

/// Who asks, and whom.
#[derive(Debug, clap::Args)]
pub(super) struct OperatorArguments {
    /// The operator's secret key, which signs the request
    #[arg(long, value_name = "FILE")]
    operator_key: PathBuf,
    /// A replica's address, such as https://HOST:PORT; once for each [default: the four of `quorate dev`]
    #[arg(
        long = "replica",
        value_name = "URL",
        hide_default_value = true,
        default_values = [
            "http://127.0.0.1:7101",
            "http://127.0.0.1:7103",
            "http://127.0.0.1:7105",
            "http://127.0.0.1:7107",
        ]
    )]
    replicas: Vec<String>,
    /// The pinned root, against which heads are verified [default: the one that all replicas serve]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The request's counter, above that of every earlier request of this key [default: milliseconds since 1970]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    counter: Option<u64>,
    /// How long to wait until it is certified, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    reach: ClientFlags,
}

/// The targets of a stop or a resume.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false, id = "which")]
pub(super) struct TargetArguments {
    /// A target's name; once for each
    #[arg(long = "target", value_name = "NAME", value_parser = target)]
    targets: Vec<TargetId>,
    /// Every target; for a resume, every one that this operator may resume
    #[arg(long)]
    all: bool,
}

pub(super) fn target(name: &str) -> Result<TargetId, String> {
    TargetId::new(name).map_err(|error| error.to_string())
}

impl TargetArguments {
    /// The selection that the flags name.
    pub(super) fn selection(self) -> Selection {
        if self.all {
            Selection::All(crate::knowledge::operator_request::All::All)
        } else {
            Selection::These(self.targets.into_iter().collect())
        }
    }
}

/// How long a request may still be ordered: long enough for clocks that differ and a cluster that is slow, short enough
/// that nobody gains by holding it back.
const REQUEST_LIFETIME: Millis = Millis::from_secs(300);

/// Signs the request, hands it to all replicas and waits for its end.
///
/// # Errors
/// [`Failure`] with code 4 when it is refused, and 1 when nobody took it or its end did not come in time.
pub(super) async fn order(
    arguments: OperatorArguments,
    request: Request,
    output: Output,
) -> Result<ExitCode, Failure> {
    let OperatorArguments { operator_key, replicas, root, counter, timeout, reach } = arguments;
    let key = read_secret_key(&operator_key).map_err(Failure::refused)?;
    let client = OperatorClient::new(reach.client(&replicas)?, &replicas, Duration::from_secs(timeout));
    let (root, pinned) = match root {
        Some(path) => (read_root(&path)?, true),
        None => (client.root().await.map_err(failure)?, false),
    };
    if root.operators().by_key(key.public().id()).is_none() {
        let error = anyhow::anyhow!("{}: this key is no operator's of the root", operator_key.display());
        return Err(Failure::refused(error).next("`quorate init` writes operators' keys to DIR/operators"));
    }
    let committee = root.committee();
    let now = wall_clock();
    let signed = OperatorRequest {
        v: 1,
        cluster: committee.cluster(),
        epoch: committee.epoch(),
        counter: counter.unwrap_or_else(|| now.as_millis()),
        expires_at: now.plus(REQUEST_LIFETIME),
        request,
    };
    let digest = Digest::of(&signed.to_bytes());
    let taken = client.hand_over(&signed.sign(&key)).await.map_err(failure)?;
    let committed = client.await_outcome(digest, &root, taken).await.map_err(failure)?;
    let targets = match &signed.request {
        Request::Stop { targets, .. } | Request::Resume { targets } => {
            let heads = client.await_heads(&committed.marks, &root).await.map_err(failure)?;
            lines(&heads, targets)
        }
        Request::BindAgent { .. } | Request::UnbindAgent { .. } => Vec::new(),
    };
    let undone =
        matches!(signed.request, Request::Stop { .. }) && targets.iter().any(|line| line.mode == Mode::Act);
    output.event(&Ordered {
        event: "ordered",
        request: signed.request,
        digest,
        operator: committed.outcome.operator,
        height: committed.outcome.height,
        said_by: committed.said_by,
        asked: replicas.len(),
        root_pinned: pinned,
        targets,
    })?;
    Ok(if undone { ExitCode::Degraded } else { ExitCode::Done })
}

fn read_root(path: &std::path::Path) -> Result<VerifiedRoot, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::failed(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })?;
    VerifiedRoot::first(&bytes).map_err(Failure::refused)
}

fn failure(error: OperatorClientError) -> Failure {
    match &error {
        OperatorClientError::Root(_) => Failure::failed(error),
        OperatorClientError::Unanswered(_) => {
            Failure::failed(error).next("see which replicas answer with `quorate status --replica URL`")
        }
        OperatorClientError::Refused(_) => Failure::refused(error),
        OperatorClientError::NotCommitted { .. } | OperatorClientError::NoHead => Failure::failed(error).next(
            "a cluster without a quorum commits and signs nothing, and its agents hold when their heads are stale; \
             see `quorate status`, and send it again, which does no harm",
        ),
    }
}

fn lines(heads: &[Certified<Head>], targets: &Selection) -> Vec<TargetLine> {
    let mut lines = Vec::new();
    for head in heads {
        let Head { shard, number, time, targets: entries, .. } = head.document();
        let wanted = entries.iter().filter(|entry| match targets {
            Selection::All(_) => true,
            Selection::These(names) => names.contains(&entry.target),
        });
        lines.extend(wanted.map(|entry| TargetLine {
            target: entry.target.clone(),
            mode: entry.mode,
            shard: *shard,
            head: *number,
            time_ms: *time,
            signers: head.signers().len(),
        }));
    }
    lines
}

#[derive(Debug, Serialize)]
struct Ordered {
    event: &'static str,
    request: Request,
    digest: Digest,
    operator: String,
    height: Height,
    said_by: usize,
    asked: usize,
    root_pinned: bool,
    targets: Vec<TargetLine>,
}

#[derive(Debug, Serialize)]
struct TargetLine {
    target: TargetId,
    mode: Mode,
    shard: Shard,
    head: HeadNumber,
    time_ms: UnixMillis,
    signers: usize,
}

impl fmt::Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, operator, height, said_by, asked, root_pinned, targets, .. } = self;
        write!(
            f,
            "operator {operator}: {request}: committed at height {height}, say {said_by} of {asked} replicas"
        )?;
        for TargetLine { target, mode, head, time_ms, signers, .. } in targets {
            let mode = match (mode, request) {
                (Mode::Act, _) => "act",
                (Mode::Hold, Request::Resume { .. }) => {
                    "hold until its next plan, or until every stop is lifted"
                }
                (Mode::Revoked, Request::Resume { .. }) => {
                    "revoked until its next plan, or until every stop is lifted"
                }
                (Mode::Hold, _) => "hold",
                (Mode::Revoked, _) => "revoked",
            };
            write!(
                f,
                "\n  {target}: {mode} (head {head} of {}, signed by {signers} replicas)",
                Utc(*time_ms)
            )?;
        }
        if !root_pinned {
            f.write_str(
                "\n  the root was taken from the replicas, which all serve the same one; --root pins it",
            )?;
        }
        Ok(())
    }
}
