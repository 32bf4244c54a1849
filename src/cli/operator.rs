//! What operators' commands have in common: the key, the replicas, the root, the signing, and the waiting for the certified
//! end.
//!
//! It wires flags to the service's client and shows what it got. Invariant: success is said only of what is committed,
//! and a mode only as a quorum's signed head shows it.

use serde::Serialize;
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{ClientFlags, ExitCode, Failure, output::Output, utc::Utc};
use crate::{
    knowledge::{
        certified::Certified,
        head::{Head, Mode},
        operator_request::{OperatorRequest, Request, Selection},
        root::VerifiedRoot,
    },
    service::{
        api::Outcome,
        clock::wall_clock,
        key_file::read_secret_key,
        operator_client::{Handed, InForce, OperatorClient, OperatorClientError, ServedRoot},
        status::StopStatus,
    },
    types::{Digest, HeadNumber, Height, Millis, SecretKey, Shard, TargetId, UnixMillis},
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
    /// The pinned root, against which heads are verified [default: the one that more than half of these replicas serve]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The request's counter, above that of every earlier request of this key and at most 2^44 above [default: milliseconds since 1970]
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

/// An operator before its replicas: with a key that the root names.
pub(super) struct Session {
    client: OperatorClient,
    key: SecretKey,
    root: VerifiedRoot,
    /// How many replicas serve the root, when it was not pinned.
    served_by: Option<usize>,
    counter: Option<u64>,
    output: Output,
}

impl Session {
    /// Reads the key, and the root or what the replicas serve as one.
    ///
    /// # Errors
    /// [`Failure`] with code 4 when the key is no operator's, and 1 when there is no root.
    pub(super) async fn open(arguments: OperatorArguments, output: Output) -> Result<Self, Failure> {
        let OperatorArguments { operator_key, replicas, root, counter, timeout, reach } = arguments;
        let key = read_secret_key(&operator_key).map_err(Failure::refused)?;
        let client = OperatorClient::new(reach.client(&replicas)?, &replicas, Duration::from_secs(timeout));
        let (root, served_by) = match root {
            Some(path) => (read_root(&path)?, None),
            None => {
                let ServedRoot { root, served_by } = client.root(progress(output)).await.map_err(failure)?;
                (root, Some(served_by))
            }
        };
        if root.operators().by_key(key.public().id()).is_none() {
            let error = anyhow::anyhow!("{}: this key is no operator's of the root", operator_key.display());
            return Err(
                Failure::refused(error).next("`quorate init` writes operators' keys to DIR/operators")
            );
        }
        Ok(Self { client, key, root, served_by, counter, output })
    }

    /// Whose stops of these targets hold, as f+1 replicas say; shown to whoever is about to sign a resume.
    ///
    /// # Errors
    /// [`Failure`] with code 4 when none does, and 1 when the replicas do not agree in time.
    pub(super) async fn in_force(&self, targets: &Selection) -> Result<InForce, Failure> {
        let in_force = self.client.in_force(targets, &self.root, progress(self.output)).await;
        let in_force = in_force.map_err(failure)?;
        let (asked, said_by) = (self.client.given(), in_force.said_by);
        if in_force.stops.values().all(Vec::is_empty) {
            let error = anyhow::anyhow!("nothing is stopped, say {said_by} of {asked} replicas");
            return Err(Failure::refused(error));
        }
        self.output.event(&Shown { event: "in_force", asked, said_by, stops: &in_force.stops })?;
        Ok(in_force)
    }

    /// Signs the request, hands it to all replicas and waits for its end.
    ///
    /// # Errors
    /// [`Failure`] with code 4 when it is refused, and 1 when nobody took it or its end did not come in time.
    pub(super) async fn order(self, request: Request) -> Result<ExitCode, Failure> {
        let Self { client, key, root, served_by, counter, output } = self;
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
        let delivered = client.deliver(&signed.sign(&key), digest, &root, progress(output)).await;
        let committed = delivered.map_err(failure)?;
        let targets = match &signed.request {
            // No head is known that came just after it, so none is shown for one that did.
            _ if matches!(committed.outcome.outcome, Outcome::OrderedBefore { .. }) => Vec::new(),
            Request::Stop { targets, .. } | Request::Resume { targets, .. } => {
                let heads = client.await_heads(&committed.marks, &root).await.map_err(failure)?;
                lines(&heads, targets)
            }
            Request::BindAgent { .. } | Request::UnbindAgent { .. } => Vec::new(),
        };
        let is_stop = matches!(signed.request, Request::Stop { .. });
        let undone = is_stop && targets.iter().any(|line| line.mode == Mode::Act);
        output.event(&Ordered {
            event: "ordered",
            request: signed.request,
            digest,
            operator: committed.outcome.operator,
            height: committed.outcome.height,
            said_by: committed.said_by,
            asked: client.given(),
            root_pinned: served_by.is_none(),
            root_served_by: served_by,
            targets,
        })?;
        Ok(if undone { ExitCode::Degraded } else { ExitCode::Done })
    }
}

/// What a replica says on the way, for people; nothing is decided by it.
fn progress(output: Output) -> impl FnMut(&str, &Handed) {
    let mut told = None;
    move |replica, said| {
        // A closed output is told of by the line that counts.
        let _ = match said {
            Handed::Taken => output.say(format_args!("{replica} took it")),
            Handed::Refused(why) if told.as_ref() == Some(why) => {
                output.say(format_args!("{replica} refuses it, too"))
            }
            Handed::Refused(why) => {
                told = Some(why.clone());
                output.say(format_args!("{replica} refuses it: {why}"))
            }
            Handed::Unanswered(why) => output.say(format_args!("{why}; it is asked again")),
        };
    }
}

/// A mode in a word.
pub(super) const fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Act => "act",
        Mode::Hold => "hold",
        Mode::Revoked => "revoked",
    }
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
        OperatorClientError::Unanswered(_) | OperatorClientError::NoAgreement { .. } => {
            Failure::failed(error).next("see which replicas answer with `quorate status --replica URL`")
        }
        OperatorClientError::Refused(_) | OperatorClientError::UnknownTarget(_) => Failure::refused(error),
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

/// What is in force before a request is signed.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    event: &'static str,
    asked: usize,
    said_by: usize,
    stops: &'a BTreeMap<TargetId, Vec<StopStatus>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, said_by, stops, .. } = self;
        write!(f, "in force, say {said_by} of {asked} replicas, which suffices:")?;
        for (target, stops) in *stops {
            if stops.is_empty() {
                write!(f, "\n  {target}: not stopped")?;
            }
            for stop in stops {
                let since = stop.since_ms.map_or_else(String::new, |since| format!(" since {}", Utc(since)));
                write!(f, "\n  {target}: {} by {}{since}", word(stop.mode), stop.operator)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Ordered {
    event: &'static str,
    request: Request,
    digest: Digest,
    operator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<Height>,
    said_by: usize,
    asked: usize,
    root_pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_served_by: Option<usize>,
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
        let Self { request, operator, height, said_by, asked, root_served_by, targets, .. } = self;
        let when = match height {
            Some(height) => format!("committed at height {height}"),
            None => {
                "ordered before and in effect since (`quorate status` shows what is in force now)".to_owned()
            }
        };
        write!(
            f,
            "operator {operator}: {request}: {when}, say {said_by} of {asked} replicas, which suffices"
        )?;
        for TargetLine { target, mode, head, time_ms, signers, .. } in targets {
            let mode = match (mode, request) {
                (Mode::Act, _) => word(*mode),
                (Mode::Hold, Request::Resume { .. }) => {
                    "hold until its next plan, or until every stop is lifted"
                }
                (Mode::Revoked, Request::Resume { .. }) => {
                    "revoked until its next plan, or until every stop is lifted"
                }
                (Mode::Hold | Mode::Revoked, _) => word(*mode),
            };
            write!(
                f,
                "\n  {target}: {mode} (head {head} of {}, signed by {signers} replicas)",
                Utc(*time_ms)
            )?;
        }
        if let Some(served_by) = root_served_by {
            write!(
                f,
                "\n  not pinned: the root by which the heads verify is the one that {served_by} of {asked} replicas serve; \
                 --root pins it"
            )?;
        }
        Ok(())
    }
}
