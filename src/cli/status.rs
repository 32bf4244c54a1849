//! `quorate status`: what every replica says of itself, side by side.
//!
//! It asks and shows; a replica's word is unsigned, so nothing is decided on it. Invariant: a replica that
//! does not answer has a line of its own.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::{ClientFlags, ExitCode, Failure, operator::word, output::Output, utc::Utc};
use crate::{
    knowledge::head::Mode,
    service::{
        http_client::{Bounds, HttpClient},
        status::{
            EvidenceStatus, GapStatus, NotReady, RefusedStatus, StatusSnapshot, StopStatus, StoreState,
            TargetStatus,
        },
    },
    types::{Digest, UnixMillis},
};

const EXAMPLES: &str = "\
Examples:
  quorate status
  quorate status --replica http://10.0.0.1:8100 --replica http://10.0.0.2:8100
  quorate status -o jsonl | jq 'select(.ready | not)'

Exit codes: 0 all these replicas are ready, none raises an alarm and nothing is proven of any, 3 at least one answers but not all is
well, 1 none answers.";

/// A replica that takes longer is as good as gone for whoever looks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A snapshot is bounded by committee and targets: some hundreds of bytes each.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Show what every replica says of itself
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
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
    #[command(flatten)]
    reach: ClientFlags,
}

/// Asks all replicas and shows what they say.
///
/// # Errors
/// [`Failure`] when the output cannot be written.
pub async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let client = arguments.reach.client(&arguments.replicas)?;
    let asked: Vec<_> = arguments
        .replicas
        .into_iter()
        .map(|url| {
            let client = client.clone();
            tokio::spawn(async move {
                let said = ask(&client, &url).await;
                Line { url, said }
            })
        })
        .collect();
    let mut lines = Vec::new();
    for task in asked {
        lines.push(task.await.map_err(Failure::failed)?);
    }
    for line in &lines {
        output.record(&Record::of(line))?;
    }
    output.say(Table(&lines))?;
    Ok(verdict(&lines))
}

/// What one replica says of itself.
///
/// # Errors
/// Why it said nothing, in a line.
pub(super) async fn ask(client: &HttpClient, url: &str) -> Result<StatusSnapshot, String> {
    let bounds = Bounds { timeout: ANSWER_TIMEOUT, body_bytes: ANSWER_BYTES };
    let address = format!("{}/v1/status", url.trim_end_matches('/'));
    let answer = client.get(&address, bounds).await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        let said: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        return Err(format!("{address} answers {}: {said}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("{address}: not a status: {error}"))
}

struct Line {
    url: String,
    said: Result<StatusSnapshot, String>,
}

fn verdict(lines: &[Line]) -> ExitCode {
    let well = |line: &Line| {
        line.said
            .as_ref()
            .is_ok_and(|said| said.is_ready() && said.alarms.is_empty() && said.evidence.is_empty())
    };
    if lines.iter().all(|line| line.said.is_err()) {
        ExitCode::Failed
    } else if lines.iter().all(well) {
        ExitCode::Done
    } else {
        ExitCode::Degraded
    }
}

/// One replica, for programs.
#[derive(Serialize)]
struct Record<'a> {
    url: &'a str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    status: Option<&'a StatusSnapshot>,
}

impl<'a> Record<'a> {
    fn of(line: &'a Line) -> Self {
        let (status, error) = match &line.said {
            Ok(status) => (Some(status), None),
            Err(error) => (None, Some(error.as_str())),
        };
        Self { url: &line.url, ready: status.is_some_and(StatusSnapshot::is_ready), error, status }
    }
}

/// All replicas, for people.
struct Table<'a>(&'a [Line]);

const HEADING: [&str; 10] =
    ["REPLICA", "READY", "VIEW", "HEIGHT", "AGREED TIME", "CYCLE", "LAG", "PEERS", "STORE", "HEAD"];

fn row(said: &StatusSnapshot) -> [String; 10] {
    let connected = said.peers.iter().filter(|peer| peer.connected).count();
    let store = match (said.store.state, said.store.lag_heights) {
        (state @ StoreState::Trouble(_), lag) => format!("{}, -{lag}", state.as_str()),
        (StoreState::Absent, _) => "none".to_owned(),
        (StoreState::Connecting | StoreState::Storing, 0) => "even".to_owned(),
        (StoreState::Connecting | StoreState::Storing, lag) => format!("-{lag}"),
    };
    let agreed = said.agreed_time_ms;
    [
        said.replica.clone(),
        if said.is_ready() { "yes".to_owned() } else { "no".to_owned() },
        said.view.to_string(),
        said.height.to_string(),
        if agreed == UnixMillis::ZERO { "-".to_owned() } else { Utc(agreed).to_string() },
        said.cycle.to_string(),
        said.windows.lag_ms.to_string(),
        format!("{connected}/{}", said.peers.len()),
        store,
        said.head.map_or_else(|| "-".to_owned(), |head| head.number.to_string()),
    ]
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.0.iter().filter_map(|line| line.said.as_ref().ok()).map(row).collect();
        if !rows.is_empty() {
            let headings = HEADING.map(str::to_owned);
            let widths = std::array::from_fn(|column| {
                rows.iter().chain([&headings]).map(|row| row[column].len()).max().unwrap_or(0)
            });
            write_row(f, &headings, widths)?;
            for row in &rows {
                write_row(f, row, widths)?;
            }
        }
        for line in self.0 {
            match &line.said {
                Ok(said) => write_troubles(f, said)?,
                Err(error) => writeln!(f, "{}: {error}", line.url)?,
            }
        }
        write_checkpoints(f, self.0)?;
        write_evidence(f, self.0)?;
        write_targets(f, self.0)?;
        write_refused(f, self.0)?;
        write_summary(f, self.0)
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, row: &[String; 10], widths: [usize; 10]) -> fmt::Result {
    let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    writeln!(f, "{}", cells.join("  ").trim_end())
}

fn write_troubles(f: &mut fmt::Formatter<'_>, said: &StatusSnapshot) -> fmt::Result {
    for NotReady { reason: _, detail } in &said.not_ready {
        writeln!(f, "{} is not ready: {detail}", said.replica)?;
    }
    for alarm in &said.alarms {
        let (kind, times) = (alarm.kind.as_str(), if alarm.count == 1 { "time" } else { "times" });
        writeln!(
            f,
            "alarm at {}: {kind} by {}, {} {times}, last at {}: {}",
            said.replica,
            alarm.replica,
            alarm.count,
            Utc(alarm.last_ms),
            alarm.detail
        )?;
    }
    Ok(())
}

/// Each newest checkpoint once, with the replicas that have it; and what is missing in a database for good.
fn write_checkpoints(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    let said = || lines.iter().filter_map(|line| line.said.as_ref().ok());
    let mut checkpoints: BTreeMap<(u64, String), Vec<&str>> = BTreeMap::new();
    for said in said() {
        if let Some(checkpoint) = said.checkpoint {
            let key = (checkpoint.height.number(), checkpoint.state.to_string());
            checkpoints.entry(key).or_default().push(&said.replica);
        }
    }
    for ((height, state), replicas) in checkpoints {
        let state = state.get(..16).unwrap_or(&state);
        writeln!(f, "checkpoint at height {height} (state {state}), say {}", replicas.join(", "))?;
    }
    for said in said() {
        if let Some(GapStatus { first, last }) = said.store.gap {
            writeln!(f, "{}'s database does not hold heights {first} to {last}", said.replica)?;
        }
    }
    Ok(())
}

/// Each proof once, with the replicas that know it.
fn write_evidence(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    let mut proofs: BTreeMap<Digest, (&EvidenceStatus, Vec<&str>)> = BTreeMap::new();
    for said in lines.iter().filter_map(|line| line.said.as_ref().ok()) {
        for proof in &said.evidence {
            proofs.entry(proof.digest).or_insert((proof, Vec::new())).1.push(&said.replica);
        }
    }
    for (digest, (proof, replicas)) in proofs {
        let EvidenceStatus { replica, kind, about, .. } = proof;
        let (kind, replicas) = (kind.as_str(), replicas.join(", "));
        writeln!(f, "evidence {digest} against {replica}: {kind}, {about}, say {replicas}")?;
    }
    Ok(())
}

/// Each target's newest plan and mode once, with the replicas that name them; more than one line for a target means
/// that some replica is behind.
fn write_targets(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    let mut targets: BTreeMap<(&str, u64, Mode), (&TargetStatus, Vec<&str>)> = BTreeMap::new();
    for said in lines.iter().filter_map(|line| line.said.as_ref().ok()) {
        for target in &said.targets {
            let key = (target.target.as_str(), target.seq.number(), target.mode);
            targets.entry(key).or_insert((target, Vec::new())).1.push(&said.replica);
        }
    }
    for ((name, seq, _), (target, replicas)) in targets {
        let (replicas, mode) = (replicas.join(", "), mode_of(target));
        if seq == 0 {
            writeln!(f, "target {name}: no plan yet, {mode}, say {replicas}")?;
            continue;
        }
        let digest = target.plan.to_string();
        let digest = digest.get(..16).unwrap_or(&digest);
        writeln!(f, "target {name}: plan {seq} ({digest}), {mode}, say {replicas}")?;
    }
    Ok(())
}

/// A target's mode, and who stopped it.
pub(super) fn mode_of(target: &TargetStatus) -> String {
    let mode = word(target.mode);
    let stop = |stop: &StopStatus| match stop.since_ms {
        Some(since) => format!("{} since {}", stop.operator, Utc(since)),
        None => stop.operator.clone(),
    };
    let stops: Vec<String> = target.stopped_by.iter().map(stop).collect();
    match (stops.is_empty(), target.mode) {
        (false, _) => format!("{mode}, stopped by {}", stops.join(" and by ")),
        (true, Mode::Act) => mode.to_owned(),
        (true, Mode::Hold | Mode::Revoked) => format!("{mode} until its next plan, after a resume"),
    }
}

fn write_refused(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    for said in lines.iter().filter_map(|line| line.said.as_ref().ok()) {
        for RefusedStatus { document, stage, reason, count } in &said.refused {
            let (document, plural) = (document.replace('_', " "), if *count == 1 { "" } else { "s" });
            let where_ = if stage == "api" { "at its API" } else { "once ordered" };
            writeln!(f, "{} refused {count} {document}{plural} {where_}: {reason}", said.replica)?;
        }
    }
    Ok(())
}

fn write_summary(f: &mut fmt::Formatter<'_>, lines: &[Line]) -> fmt::Result {
    let said: Vec<_> = lines.iter().filter_map(|line| line.said.as_ref().ok()).collect();
    let ready = said.iter().filter(|said| said.is_ready()).count();
    match said.first() {
        Some(first) => write!(
            f,
            "{ready} of {} replicas asked are ready; {} of {} decide",
            lines.len(),
            first.quorum,
            first.replicas
        ),
        None => f.write_str("no replica answers"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Record, Table, verdict};
    use crate::{
        cli::ExitCode,
        service::status::{
            AlarmKind, CheckpointStatus, GapStatus, NotReady, NotReadyReason, StatusSnapshot, tests::snapshot,
        },
        types::{Digest, Height, UnixMillis},
    };

    fn line(said: Result<StatusSnapshot, String>) -> Line {
        Line { url: "http://127.0.0.1:1".to_owned(), said }
    }

    fn unready() -> StatusSnapshot {
        let mut said = snapshot();
        said.not_ready.push(NotReady {
            reason: NotReadyReason::NoQuorum,
            detail: "2 of at least 3 replicas are linked".to_owned(),
        });
        said
    }

    fn alarmed() -> StatusSnapshot {
        let mut said = snapshot();
        said.raise(AlarmKind::OtherPlan, "r3", "it signed another plan".to_owned(), UnixMillis::new(1_000));
        said
    }

    #[test]
    fn the_exit_code_tells_well_from_degraded_from_gone() {
        let gone = || line(Err("it does not answer".to_owned()));
        let cases = [
            (vec![line(Ok(snapshot())), line(Ok(snapshot()))], ExitCode::Done),
            (vec![line(Ok(snapshot())), line(Ok(unready()))], ExitCode::Degraded),
            (vec![line(Ok(snapshot())), line(Ok(alarmed()))], ExitCode::Degraded),
            (vec![line(Ok(snapshot())), gone()], ExitCode::Degraded),
            (vec![gone(), gone()], ExitCode::Failed),
        ];
        for (lines, expected) in cases {
            assert_eq!(verdict(&lines), expected);
        }
    }

    #[test]
    fn people_see_reasons_alarms_and_the_replicas_that_do_not_answer() {
        let mut behind = unready();
        behind.checkpoint = Some(CheckpointStatus { height: Height::new(512), state: Digest::ZERO });
        behind.store.gap = Some(GapStatus { first: Height::new(1), last: Height::new(512) });
        let lines = [line(Ok(behind)), line(Ok(alarmed())), line(Err("it does not answer".to_owned()))];
        let table = Table(&lines).to_string();
        for part in [
            "r0       no     9",
            "r0       yes    9",
            "2/3",
            "r0 is not ready: 2 of at least 3 replicas are linked",
            "alarm at r0: other_plan by r3, 1 time, last at 1970-01-01 00:00:01.000 UTC: it signed another plan",
            "http://127.0.0.1:1: it does not answer",
            "checkpoint at height 512 (state 0000000000000000), say r0\n",
            "r0's database does not hold heights 1 to 512",
            "target pool: plan 4 (0000000000000000), act, say r0, r0",
            "1 of 3 replicas asked are ready; 3 of 4 decide",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
    }

    #[test]
    fn programs_get_one_object_a_replica() {
        let record = |line| serde_json::to_value(Record::of(&line)).expect("it has a JSON form");
        let said = record(line(Ok(unready())));
        assert_eq!(
            (&said["ready"], &said["replica"], &said["height"]),
            (&false.into(), &"r0".into(), &7.into())
        );
        let gone = record(line(Err("it does not answer".to_owned())));
        assert_eq!((&gone["ready"], &gone["error"]), (&false.into(), &"it does not answer".into()));
    }
}
