//! `quorate plans`: the logged plans that a replica serves, and what agents may do with each target's newest one.
//!
//! It shows and decides nothing. Invariant: with `--root`, a plan or mode that the root's replicas did not certify
//! is never shown.

use std::{collections::VecDeque, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ClientFlags, ExitCode, Failure, operator::word, output::Output, status, utc::Utc};
use crate::{
    execute::feed::{PLANS_KEPT_PER_TARGET, PLANS_PER_ANSWER},
    knowledge::{
        certified::Certified,
        head::{Head, Mode},
        plan::{DesiredState, Plan, Reason},
        root::VerifiedRoot,
    },
    service::{
        http_client::{Bounds, HttpClient},
        status::{StopStatus, TargetStatus},
    },
    types::{
        Cycle, Digest, Envelope, HeadNumber, MAX_ENVELOPE_BYTES, TargetId, UnixMillis, from_strict_json,
    },
};

const EXAMPLES: &str = "\
Examples:
  quorate plans
  quorate plans --replica http://10.0.0.1:8100 --target extract_pool --limit 5 --root root.json
  quorate plans -o jsonl | jq 'select(.event == \"target\") | {target, mode}'
  quorate plans -o jsonl | jq 'select(.event == \"plan\") | .desired'

Each target's plans, oldest first, and before them its mode as the newest head shows it: act (agents may apply the \
newest plan), hold (they apply nothing new) or revoked (the newest plan is withdrawn). Who stopped a target is the \
replica's word; `quorate status` shows it for all replicas.

Without --root nothing is verified: a replica could show what it likes. `quorate verify` checks one plan.

Exit codes: 0 done, 1 the replica does not answer, 4 with --root: a plan or a head is not certified.";

/// As for `quorate status`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The heads of a hundred shards of the largest size.
const HEADS_BYTES: usize = 16 * 1024 * 1024;

/// List the logged plans that a replica serves
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The replica's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7101")]
    replica: String,
    /// Only this target's plans [default: every target's]
    #[arg(long, value_name = "NAME", value_parser = target)]
    target: Option<TargetId>,
    /// At most so many plans a target, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    limit: u16,
    /// Verify every plan against this root
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    reach: ClientFlags,
}

fn target(name: &str) -> Result<TargetId, String> {
    TargetId::new(name).map_err(|error| error.to_string())
}

/// Asks the replica and shows its plans, oldest first.
///
/// # Errors
/// [`Failure`] with code 1 when the replica does not answer, and 4 when a plan does not verify.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let root = arguments.root.as_deref().map(read_root).transpose()?;
    let client = arguments.reach.client(std::slice::from_ref(&arguments.replica))?;
    let url = arguments.replica.trim_end_matches('/');
    let mut targets = targets(&client, url).await?;
    if let Some(wanted) = &arguments.target {
        targets.retain(|status| status.target == *wanted);
        if targets.is_empty() {
            return Err(Failure::failed(anyhow::anyhow!("{url} knows no target {wanted}")));
        }
    }
    let heads = heads(&client, url, root.as_ref()).await?;
    let mut shown = 0;
    for status in &targets {
        let target = &status.target;
        output.event(&TargetLine::of(status, &heads, root.is_some()))?;
        for envelope in newest(&client, url, target, arguments.limit.into()).await? {
            let line = Line::of(envelope, root.as_ref())?;
            if line.plan.target != *target {
                return Err(Failure::refused(anyhow::anyhow!(
                    "{url} serves a plan for {} as one for {target}",
                    line.plan.target
                )));
            }
            output.event(&line)?;
            shown += 1;
        }
    }
    if shown == 0 {
        output.say("no plan is logged")?;
    }
    Ok(ExitCode::Done)
}

fn read_root(path: &std::path::Path) -> Result<VerifiedRoot, Failure> {
    let told = |error: String| anyhow::anyhow!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| Failure::failed(told(error.to_string())))?;
    VerifiedRoot::first(&bytes).map_err(|error| Failure::refused(told(error.to_string())))
}

async fn targets(client: &HttpClient, url: &str) -> Result<Vec<TargetStatus>, Failure> {
    let said = status::ask(client, url).await.map_err(|error| Failure::failed(anyhow::anyhow!(error)))?;
    Ok(said.targets)
}

#[derive(Deserialize)]
struct Heads {
    heads: Vec<Envelope>,
}

/// The newest head of every shard.
async fn heads(client: &HttpClient, url: &str, root: Option<&VerifiedRoot>) -> Result<Vec<Head>, Failure> {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: HEADS_BYTES };
    let address = format!("{url}/v1/heads");
    let Heads { heads } = read_answer(client, &address, bounds).await?;
    let head = |envelope: Envelope| match root {
        Some(root) => Certified::<Head>::verify_envelope(envelope, root.committee())
            .map(|certified| certified.document().clone())
            .map_err(Failure::refused),
        None => from_strict_json(envelope.unverified_body())
            .map_err(|error| Failure::failed(anyhow::anyhow!("{address}: not a head: {error}"))),
    };
    heads.into_iter().map(head).collect()
}

async fn read_answer<T: DeserializeOwned>(
    client: &HttpClient,
    address: &str,
    bounds: Bounds,
) -> Result<T, Failure> {
    let answer = client.get(address, bounds).await.map_err(Failure::failed)?;
    if !answer.status.is_success() {
        let said = String::from_utf8_lossy(&answer.body);
        return Err(Failure::failed(anyhow::anyhow!("{address} answers {}: {said}", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::failed(anyhow::anyhow!("{address}: not what was asked for: {error}")))
}

#[derive(Deserialize)]
struct Plans {
    plans: Vec<Envelope>,
}

/// The newest envelopes of a target, oldest first.
async fn newest(
    client: &HttpClient,
    url: &str,
    target: &TargetId,
    most: usize,
) -> Result<VecDeque<Envelope>, Failure> {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: PLANS_PER_ANSWER * MAX_ENVELOPE_BYTES };
    let mut found = VecDeque::new();
    let mut after = Cycle::ZERO;
    // A replica keeps no more, so one that goes on answering is not believed.
    for _ in 0..=PLANS_KEPT_PER_TARGET.div_ceil(PLANS_PER_ANSWER) {
        let address = format!("{url}/v1/plans?target={target}&after={after}");
        let malformed = |error: String| Failure::failed(anyhow::anyhow!("{address}: not plans: {error}"));
        let Plans { plans } = read_answer(client, &address, bounds).await?;
        let Some(last) = plans.last() else { break };
        after = body(last).map_err(malformed)?.seq;
        found.extend(plans);
        found.drain(..found.len().saturating_sub(most));
    }
    Ok(found)
}

/// Every plan that a replica serves, as it serves them.
pub(super) async fn served(client: &HttpClient, url: &str) -> Result<Vec<Envelope>, Failure> {
    let mut all = Vec::new();
    for status in targets(client, url).await? {
        all.extend(newest(client, url, &status.target, PLANS_KEPT_PER_TARGET).await?);
    }
    Ok(all)
}

fn body(envelope: &Envelope) -> Result<Plan, String> {
    from_strict_json(envelope.unverified_body()).map_err(|error| error.to_string())
}

/// A target's mode, and who stopped it.
#[derive(Serialize)]
struct TargetLine<'a> {
    event: &'static str,
    target: &'a TargetId,
    /// Absent while no head names the target.
    mode: Option<Mode>,
    head: Option<HeadNumber>,
    time_ms: Option<UnixMillis>,
    verified: bool,
    stopped_by: &'a [StopStatus],
}

impl<'a> TargetLine<'a> {
    fn of(status: &'a TargetStatus, heads: &[Head], verified: bool) -> Self {
        let named = heads.iter().find_map(|head| {
            let entry = head.targets.iter().find(|entry| entry.target == status.target)?;
            Some((head, entry.mode))
        });
        Self {
            event: "target",
            target: &status.target,
            mode: named.map(|(_, mode)| mode),
            head: named.map(|(head, _)| head.number),
            time_ms: named.map(|(head, _)| head.time),
            verified: verified && named.is_some(),
            stopped_by: &status.stopped_by,
        }
    }
}

impl fmt::Display for TargetLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, mode, head, time_ms, verified, stopped_by, .. } = self;
        let (Some(mode), Some(head), Some(time)) = (mode, head, time_ms) else {
            return write!(f, "{target}: no head yet, so agents apply nothing");
        };
        let verified = if *verified { "verified" } else { "not verified" };
        write!(f, "{target}: {} (head {head} of {}, {verified})", word(*mode), Utc(*time))?;
        let stops: Vec<&str> = stopped_by.iter().map(|stop| stop.operator.as_str()).collect();
        if stops.is_empty() { Ok(()) } else { write!(f, ", stopped by {}", stops.join(" and by ")) }
    }
}

/// A plan and who signed it.
#[derive(Serialize)]
struct Line {
    event: &'static str,
    #[serde(flatten)]
    plan: Plan,
    digest: Digest,
    /// Replicas' places when a root was given, else key identifiers.
    signers: Vec<String>,
    verified: bool,
    envelope: Envelope,
}

impl Line {
    fn of(envelope: Envelope, root: Option<&VerifiedRoot>) -> Result<Self, Failure> {
        if let Some(root) = root {
            let committee = root.committee();
            let certified =
                Certified::<Plan>::verify_envelope(envelope, committee).map_err(Failure::refused)?;
            let mut places: Vec<_> =
                certified.signers().iter().filter_map(|key| committee.place_of_id(*key)).collect();
            places.sort_unstable();
            return Ok(Self {
                event: "plan",
                plan: certified.document().clone(),
                digest: certified.digest(),
                signers: places.into_iter().map(|place| place.to_string()).collect(),
                verified: true,
                envelope: certified.envelope().clone(),
            });
        }
        let plan = body(&envelope)
            .map_err(|error| Failure::failed(anyhow::anyhow!("the replica serves no plan: {error}")))?;
        Ok(Self {
            event: "plan",
            plan,
            digest: Digest::of(envelope.unverified_body()),
            signers: envelope.signatures().iter().map(|(key, _)| key.to_string()).collect(),
            verified: false,
            envelope,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        let from: DesiredState = plan.preconditions.state;
        let why = match plan.reason {
            Reason::Threshold => "a threshold",
            Reason::Absence => "an absence",
            Reason::Capacity => "a load",
        };
        let issued: UnixMillis = plan.issued_at;
        write!(
            f,
            "  {} {}: {from} -> {}, issued {}, because of {why}, ",
            plan.target,
            plan.seq,
            plan.desired,
            Utc(issued)
        )?;
        // Without a root the keys are mere claims, and too long to read.
        if self.verified {
            write!(f, "signed by {}", self.signers.join(", "))
        } else {
            write!(f, "{} signatures, not verified", self.signers.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Line, TargetLine, run};
    use crate::{
        cli::{ClientFlags, ExitCode, output::Output},
        knowledge::{
            fixtures::{
                certified_head, certified_plan, head, plan, replica_keys, seal, target, verified_root,
            },
            head::{HEAD_TYPE, Mode},
            plan::{PLAN_TYPE, Plan},
        },
        service::status::{StatusSnapshot, StopStatus, TargetStatus, tests::snapshot},
        types::{Cycle, Digest, Envelope},
    };
    use axum::{Json, Router, extract::RawQuery, routing::get};

    #[test]
    fn with_a_root_the_signing_replicas_are_named() {
        let envelope = certified_plan(&plan()).envelope().clone();
        let verified = Line::of(envelope.clone(), Some(&verified_root())).expect("it is certified");
        let line = verified.to_string();
        for part in ["extract_pool 37: 3 slots -> 6 slots", "signed by r0, r1, r2"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        let unverified = Line::of(envelope, None).expect("it is a plan").to_string();
        assert!(unverified.ends_with("3 signatures, not verified"), "{unverified}");
    }

    #[test]
    fn with_a_root_a_plan_without_a_quorum_is_refused() {
        let few = seal(PLAN_TYPE, plan().to_bytes(), &replica_keys()[..2]);
        let few = Envelope::from_json(&few).expect("it is an envelope");
        let refused = Line::of(few, Some(&verified_root())).err().expect("two of four do not decide");
        assert_eq!(refused.code(), ExitCode::Refused);
    }

    fn pool() -> TargetStatus {
        let mut status = snapshot().targets.remove(0);
        status.target = target();
        status
    }

    #[test]
    fn a_targets_mode_is_the_newest_heads_with_who_stopped_it() {
        let mut status = pool();
        for (mode, word) in [(Mode::Act, "act"), (Mode::Hold, "hold"), (Mode::Revoked, "revoked")] {
            let line = TargetLine::of(&status, &[head(7, mode)], true).to_string();
            assert_eq!(
                line,
                format!("extract_pool: {word} (head 7 of 1970-01-01 00:16:41.000 UTC, verified)")
            );
        }
        status.stopped_by = vec![StopStatus {
            operator: "bea".to_owned(),
            mode: Mode::Hold,
            keyid: Digest::ZERO,
            counter: 1,
            since_ms: None,
        }];
        let line = TargetLine::of(&status, &[head(7, Mode::Hold)], false).to_string();
        assert!(line.ends_with("not verified), stopped by bea"), "{line}");
        let line = TargetLine::of(&status, &[], true);
        assert_eq!((line.mode, line.verified), (None, false));
        assert!(line.to_string().contains("no head yet"), "{line}");
    }

    /// What such a replica serves besides plans.
    fn serving(heads: Vec<serde_json::Value>) -> Router {
        let status = StatusSnapshot { targets: vec![pool()], ..snapshot() };
        Router::new()
            .route("/v1/status", get(async move || Json(status)))
            .route("/v1/heads", get(async move || Json(serde_json::json!({"heads": heads}))))
    }

    #[tokio::test]
    async fn with_a_root_a_head_without_a_quorum_is_refused() {
        let few = seal(HEAD_TYPE, head(7, Mode::Act).to_bytes(), &replica_keys()[..2]);
        let root = tempfile::NamedTempFile::new().expect("a file for the test");
        std::fs::write(root.path(), verified_root().envelope().to_json()).expect("it is writable");
        let replica = serve(serving(vec![serde_json::from_slice(&few).expect("it is JSON")])).await;
        let root = Some(root.path().to_owned());
        let arguments = Arguments { replica, target: None, limit: 2, root, reach: ClientFlags::default() };
        let refused = run(arguments, Output::default()).await.expect_err("two of four do not decide");
        assert_eq!(refused.code(), ExitCode::Refused);
    }

    async fn serve(routes: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let replica = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(axum::serve(listener, routes).into_future());
        replica
    }

    /// A replica that serves one plan after any number, whatever was asked.
    #[tokio::test]
    async fn a_replica_that_never_ends_is_left() {
        let serve_plans = |RawQuery(query): RawQuery| async move {
            let after = query.unwrap_or_default().rsplit_once("after=").and_then(|(_, n)| n.parse().ok());
            let next = Plan { seq: Cycle::new(after.unwrap_or(0) + 1), ..plan() };
            Json(serde_json::json!({"plans": [certified_plan(&next).envelope()]}))
        };
        let newest =
            serde_json::to_value(certified_head(&head(7, Mode::Act)).envelope()).expect("it is JSON");
        let replica = serve(serving(vec![newest]).route("/v1/plans", get(serve_plans))).await;
        let target = plan().target;
        let arguments =
            Arguments { replica, target: Some(target), limit: 2, root: None, reach: ClientFlags::default() };
        let code = run(arguments, Output::default()).await.expect("it is shown");
        assert_eq!(code, ExitCode::Done);
    }
}
