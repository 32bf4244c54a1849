//! `quorate plans`: the logged plans that a replica serves.
//!
//! It shows and decides nothing. Invariant: with `--root`, a plan that the root's replicas did not certify
//! is never shown.

use std::{collections::VecDeque, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ClientFlags, ExitCode, Failure, output::Output, status, utc::Utc};
use crate::{
    execute::feed::{PLANS_KEPT_PER_TARGET, PLANS_PER_ANSWER},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan, Reason},
        root::VerifiedRoot,
    },
    service::http_client::{Bounds, HttpClient},
    types::{Cycle, Digest, Envelope, MAX_ENVELOPE_BYTES, TargetId, UnixMillis, from_strict_json},
};

const EXAMPLES: &str = "\
Examples:
  quorate plans
  quorate plans --replica http://10.0.0.1:8100 --target extract_pool --limit 5 --root root.json
  quorate plans -o jsonl | jq .desired

Without --root nothing is verified: a replica could show what it likes. `quorate verify` checks one plan.

Exit codes: 0 done, 1 the replica does not answer, 4 with --root: a plan is not certified.";

/// As for `quorate status`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

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
    let targets = match arguments.target {
        Some(target) => vec![target],
        None => targets(&client, url).await?,
    };
    let mut shown = 0;
    for target in &targets {
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

async fn targets(client: &HttpClient, url: &str) -> Result<Vec<TargetId>, Failure> {
    let said = status::ask(client, url).await.map_err(|error| Failure::failed(anyhow::anyhow!(error)))?;
    Ok(said.targets.into_iter().map(|target| target.target).collect())
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
        let answer = client.get(&address, bounds).await.map_err(Failure::failed)?;
        if !answer.status.is_success() {
            let said = String::from_utf8_lossy(&answer.body);
            return Err(Failure::failed(anyhow::anyhow!("{address} answers {}: {said}", answer.status)));
        }
        let malformed = |error: String| Failure::failed(anyhow::anyhow!("{address}: not plans: {error}"));
        let Plans { plans } =
            serde_json::from_slice(&answer.body).map_err(|error| malformed(error.to_string()))?;
        let Some(last) = plans.last() else { break };
        after = body(last).map_err(malformed)?.seq;
        found.extend(plans);
        found.drain(..found.len().saturating_sub(most));
    }
    Ok(found)
}

fn body(envelope: &Envelope) -> Result<Plan, String> {
    from_strict_json(envelope.unverified_body()).map_err(|error| error.to_string())
}

/// A plan and who signed it.
#[derive(Serialize)]
struct Line {
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
        };
        let issued: UnixMillis = plan.issued_at;
        write!(
            f,
            "{} {}: {from} -> {}, issued {}, because of {why}, ",
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
    use super::{Arguments, Line, run};
    use crate::{
        cli::{ClientFlags, ExitCode, output::Output},
        knowledge::{
            fixtures::{certified_plan, plan, replica_keys, seal, verified_root},
            plan::{PLAN_TYPE, Plan},
        },
        types::{Cycle, Envelope},
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

    /// A replica that serves one plan after any number, whatever was asked.
    #[tokio::test]
    async fn a_replica_that_never_ends_is_left() {
        let serve = |RawQuery(query): RawQuery| async move {
            let after = query.unwrap_or_default().rsplit_once("after=").and_then(|(_, n)| n.parse().ok());
            let next = Plan { seq: Cycle::new(after.unwrap_or(0) + 1), ..plan() };
            Json(serde_json::json!({"plans": [certified_plan(&next).envelope()]}))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let replica = format!("http://{}", listener.local_addr().expect("it is bound"));
        let routes = Router::new().route("/v1/plans", get(serve));
        tokio::spawn(axum::serve(listener, routes).into_future());
        let target = plan().target;
        let arguments =
            Arguments { replica, target: Some(target), limit: 2, root: None, reach: ClientFlags::default() };
        let code = run(arguments, Output::default()).await.expect("it is shown");
        assert_eq!(code, ExitCode::Done);
    }
}
