//! What the API asks of the knowledge base. Every answer has a bounded number of rows.

use sqlx::PgConnection;
use std::collections::BTreeMap;

use super::{
    connect::Store,
    error::{CorruptRow, QueryError, StatementError},
    values::{Row, time_ms},
};
use crate::{
    knowledge::{
        change::Effect,
        finding::{Finding, Interval},
        observation::SeriesKey,
        plan::DesiredState,
        policy::Statistic,
        receipt::Outcome,
        snapshot::{Finality, Reading},
    },
    types::{
        Cycle, Digest, Epoch, HeadNumber, Height, ReplicaIndex, Shard, TargetId, UnixMillis, View,
        WindowIndex,
    },
};

/// The most rows of one answer: a page for a person or a poll, never the whole history.
pub const MAX_ROWS: u32 = 1_000;

/// How far the log is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedHeight {
    /// The newest applied block's height; 0 when none is.
    pub height: Height,
    /// Its digest; zeros when there is none.
    pub digest: Digest,
    /// Agreed time after it.
    pub agreed_time: UnixMillis,
    /// The newest view in which the replica was known to have signed anything.
    pub signed_view: View,
}

/// What became of a logged plan, by the newest receipt that says so: a refusal takes nothing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanState {
    /// No agent has said anything yet.
    Logged,
    /// The agent applied it.
    Applied,
    /// The target already was as desired.
    Noop,
    /// The agent refused it.
    Refused,
    /// The agent took it back.
    Reverted,
}

/// A logged plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// SHA-256 of the body.
    pub digest: Digest,
    /// What it is for.
    pub target: TargetId,
    /// The control cycle it was derived in.
    pub seq: Cycle,
    /// The exact bytes that were signed.
    pub body: Vec<u8>,
    /// The envelope's JSON with the quorum's signatures.
    pub envelope: Vec<u8>,
    /// What became of it.
    pub state: PlanState,
    /// What the quorum's metrics say of it; `None` until its time has come.
    pub effect: Option<Effect>,
    /// Agreed time at which it took effect.
    pub logged_at: UnixMillis,
    /// The block that logged it.
    pub height: Height,
}

/// A certified head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// The epoch whose committee certified it.
    pub epoch: Epoch,
    /// Which targets it speaks of.
    pub shard: Shard,
    /// Its number within the shard.
    pub number: HeadNumber,
    /// Agreed time.
    pub time: UnixMillis,
    /// The exact bytes that were signed.
    pub body: Vec<u8>,
    /// The envelope's JSON with the quorum's signatures.
    pub envelope: Vec<u8>,
}

/// A closed window without its series' values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWindow {
    /// Which window.
    pub window: WindowIndex,
    /// Its first point in time.
    pub start: UnixMillis,
    /// The control cycle that its closing began.
    pub cycle: Cycle,
    /// Agreed time of its closing.
    pub closed_at: UnixMillis,
    /// How it closed.
    pub finality: Finality,
    /// Whose reports were logged, and whether each was partial, in the committee's order.
    pub reporters: Vec<(ReplicaIndex, bool)>,
    /// One reading for each policy's indicator, in the order of the genesis' policies.
    pub readings: Vec<Reading>,
}

/// A finding with its cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFinding {
    /// In which cycle.
    pub cycle: Cycle,
    /// What was seen.
    pub finding: Finding,
}

/// A logged receipt. Its numbers are the agent's claims, cut to what a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The target.
    pub target: TargetId,
    /// SHA-256 of the plan's body.
    pub plan: Digest,
    /// What became of the plan.
    pub outcome: Outcome,
    /// The target's state before.
    pub before: DesiredState,
    /// The target's state after.
    pub after: DesiredState,
    /// The agent's clock.
    pub at: UnixMillis,
    /// The envelope's JSON with the agent's signature.
    pub envelope: Vec<u8>,
}

impl Store {
    /// How far the log is applied.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn applied_height(&self) -> Result<AppliedHeight, QueryError> {
        let mut connection = self.pool.acquire().await.map_err(StatementError::on("applied_height"))?;
        read_applied(&mut connection).await
    }

    /// A target's logged plans after a sequence number, oldest first.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn plans(
        &self,
        target: &TargetId,
        after: Cycle,
        limit: u32,
    ) -> Result<Vec<StoredPlan>, QueryError> {
        let rows = sqlx::query_as!(
            PlanRow,
            r#"SELECT p.digest, p.target, p.seq, p.body, c.envelope, p.state, p.effect,
                      to_unix_ms(p.logged_at) AS "logged_at_ms!", p.height
               FROM plans p JOIN certificates c ON c.plan = p.digest
               WHERE p.target = $1 AND p.seq > $2 ORDER BY p.seq LIMIT $3"#,
            target.as_str(),
            super::values::column_i64(after.number()),
            rows(limit),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("plans"))?;
        rows.into_iter().map(|row| Ok(row.read()?)).collect()
    }

    /// The logged plan with this digest.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn plan(&self, digest: Digest) -> Result<Option<StoredPlan>, QueryError> {
        let row = sqlx::query_as!(
            PlanRow,
            r#"SELECT p.digest, p.target, p.seq, p.body, c.envelope, p.state, p.effect,
                      to_unix_ms(p.logged_at) AS "logged_at_ms!", p.height
               FROM plans p JOIN certificates c ON c.plan = p.digest
               WHERE p.digest = $1"#,
            digest.as_bytes().as_slice(),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StatementError::on("plans"))?;
        row.map(|row| Ok(row.read()?)).transpose()
    }

    /// What the plans that name this digest as their evidence were derived from.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn bundle(&self, digest: Digest) -> Result<Option<Vec<u8>>, QueryError> {
        let stored = sqlx::query_scalar!(
            "SELECT bundle FROM evidence_bundles WHERE digest = $1",
            digest.as_bytes().as_slice()
        );
        Ok(stored.fetch_optional(&self.pool).await.map_err(StatementError::on("evidence_bundles"))?)
    }

    /// A shard's newest certified head.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn head(&self, shard: Shard) -> Result<Option<StoredHead>, QueryError> {
        let head = sqlx::query!(
            r#"SELECT epoch, number, to_unix_ms(agreed_time) AS "time_ms!", body, envelope AS "envelope!"
               FROM heads WHERE shard = $1 AND envelope IS NOT NULL
               ORDER BY epoch DESC, number DESC LIMIT 1"#,
            i32::from(shard.number()),
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(StatementError::on("heads"))?;
        let Some(head) = head else { return Ok(None) };
        let row = Row::new("heads", format_args!("shard {shard} number {}", head.number));
        Ok(Some(StoredHead {
            epoch: Epoch::new(row.counter("epoch", head.epoch)?),
            shard,
            number: HeadNumber::new(row.counter("number", head.number)?),
            time: row.time("agreed_time", head.time_ms)?,
            body: head.body,
            envelope: head.envelope,
        }))
    }

    /// The windows that start at or after `from` and before `to`, oldest first, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn windows(&self, from: UnixMillis, to: UnixMillis) -> Result<Vec<StoredWindow>, QueryError> {
        let windows = sqlx::query_as!(
            WindowRow,
            r#"SELECT to_unix_ms(start_at) AS "start_ms!", window_index, cycle,
                      to_unix_ms(closed_at) AS "closed_at_ms!", finality, reporters, partial_reporters
               FROM merged_windows WHERE start_at >= from_unix_ms($1) AND start_at < from_unix_ms($2)
               ORDER BY start_at LIMIT $3"#,
            time_ms(from),
            time_ms(to),
            rows(MAX_ROWS),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("merged_windows"))?;
        let starts: Vec<i64> = windows.iter().map(|window| window.start_ms).collect();
        let mut readings = self.readings(&starts).await?;
        let with_readings = windows.into_iter().map(|window| {
            let readings = readings.remove(&window.start_ms).unwrap_or_default();
            Ok(window.read(readings)?)
        });
        with_readings.collect()
    }

    async fn readings(&self, starts: &[i64]) -> Result<BTreeMap<i64, Vec<Reading>>, QueryError> {
        let rows = sqlx::query_as!(
            ReadingRow,
            r#"SELECT to_unix_ms(r.start_at) AS "start_ms!", r.policy, r.kind, r.low::text, r.median::text,
                      r.high::text, to_unix_ms(r.since) AS since_ms, r.learned_interval_ms
               FROM UNNEST($1::bigint[]) AS w (start_ms) JOIN readings r ON r.start_at = from_unix_ms(w.start_ms)
               ORDER BY r.start_at, r.policy"#,
            starts,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("readings"))?;
        let mut readings: BTreeMap<i64, Vec<Reading>> = BTreeMap::new();
        for row in rows {
            readings.entry(row.start_ms).or_default().push(row.read()?);
        }
        Ok(readings)
    }

    /// Every series' merged statistics in one window.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn window_values(
        &self,
        window: WindowIndex,
    ) -> Result<BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>>, QueryError> {
        let rows = sqlx::query!(
            r#"SELECT s.id, s.key, v.statistic, v.low::text AS "low!", v.median::text AS "median!",
                      v.high::text AS "high!"
               FROM window_values v JOIN series s ON s.id = v.series
               WHERE v.start_at = from_unix_ms($1)"#,
            time_ms(window.start(self.window)),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("window_values"))?;
        let mut series: BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>> = BTreeMap::new();
        for stored in rows {
            let row = Row::new("series", stored.id);
            let key: SeriesKey = borsh::from_slice(&stored.key).map_err(|error| row.corrupt("key", error))?;
            let row = Row::new("window_values", format_args!("{window} series {}", stored.id));
            let statistic: Statistic = row.named("statistic", &stored.statistic)?;
            let interval = Interval {
                low: row.quantity("low", &stored.low)?,
                median: row.quantity("median", &stored.median)?,
                high: row.quantity("high", &stored.high)?,
            };
            series.entry(key).or_default().insert(statistic, interval);
        }
        Ok(series)
    }

    /// The newest findings, newest first.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn findings(&self, limit: u32) -> Result<Vec<StoredFinding>, QueryError> {
        let rows = sqlx::query_as!(
            FindingRow,
            r#"SELECT height, ordinal, cycle, policy, symptom, window_index, to_unix_ms(since) AS "since_ms!",
                      observed_low::text, observed_median::text, observed_high::text, against::text
               FROM findings ORDER BY height DESC, ordinal DESC LIMIT $1"#,
            rows(limit),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("findings"))?;
        rows.into_iter().map(|row| Ok(row.read()?)).collect()
    }

    /// A plan's newest receipts, oldest first, at most [`MAX_ROWS`].
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn receipts(&self, plan: Digest) -> Result<Vec<StoredReceipt>, QueryError> {
        let rows = sqlx::query_as!(
            ReceiptRow,
            r#"SELECT height, ordinal, target, outcome, refusal, state_before::text AS "state_before!",
                      state_after::text AS "state_after!", to_unix_ms(agent_time) AS "agent_time_ms!", envelope
               FROM receipts WHERE plan = $1 ORDER BY height DESC, ordinal DESC LIMIT $2"#,
            plan.as_bytes().as_slice(),
            rows(MAX_ROWS),
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StatementError::on("receipts"))?;
        rows.into_iter().rev().map(|row| Ok(row.read(plan)?)).collect()
    }
}

pub(super) async fn read_applied(connection: &mut PgConnection) -> Result<AppliedHeight, QueryError> {
    let applied = sqlx::query!(
        r#"SELECT height, digest, to_unix_ms(agreed_time) AS "agreed_time_ms!", signed_view FROM applied_height"#
    )
    .fetch_one(connection)
    .await
    .map_err(StatementError::on("applied_height"))?;
    let row = Row::new("applied_height", "the only one");
    Ok(AppliedHeight {
        height: Height::new(row.counter("height", applied.height)?),
        digest: row.digest("digest", &applied.digest)?,
        agreed_time: row.time("agreed_time", applied.agreed_time_ms)?,
        signed_view: View::new(row.counter("signed_view", applied.signed_view)?),
    })
}

fn rows(limit: u32) -> i64 {
    i64::from(limit.min(MAX_ROWS))
}

struct PlanRow {
    digest: Vec<u8>,
    target: String,
    seq: i64,
    body: Vec<u8>,
    envelope: Vec<u8>,
    state: String,
    effect: Option<String>,
    logged_at_ms: i64,
    height: i64,
}

impl PlanRow {
    fn read(self) -> Result<StoredPlan, CorruptRow> {
        let row = Row::new("plans", format_args!("{} seq {}", self.target, self.seq));
        Ok(StoredPlan {
            digest: row.digest("digest", &self.digest)?,
            target: row.target("target", self.target)?,
            seq: Cycle::new(row.counter("seq", self.seq)?),
            body: self.body,
            envelope: self.envelope,
            state: row.named("state", &self.state)?,
            effect: self.effect.map(|effect| row.named("effect", &effect)).transpose()?,
            logged_at: row.time("logged_at", self.logged_at_ms)?,
            height: Height::new(row.counter("height", self.height)?),
        })
    }
}

struct WindowRow {
    start_ms: i64,
    window_index: i64,
    cycle: i64,
    closed_at_ms: i64,
    finality: String,
    reporters: Vec<i32>,
    partial_reporters: Vec<i32>,
}

impl WindowRow {
    fn read(self, readings: Vec<Reading>) -> Result<StoredWindow, CorruptRow> {
        let row = Row::new("merged_windows", self.window_index);
        let mut reporters = Vec::new();
        for place in self.reporters {
            reporters.push((row.replica("reporters", place)?, false));
        }
        for place in self.partial_reporters {
            reporters.push((row.replica("partial_reporters", place)?, true));
        }
        reporters.sort_unstable();
        Ok(StoredWindow {
            window: WindowIndex::new(row.counter("window_index", self.window_index)?),
            start: row.time("start_at", self.start_ms)?,
            cycle: Cycle::new(row.counter("cycle", self.cycle)?),
            closed_at: row.time("closed_at", self.closed_at_ms)?,
            finality: row.named("finality", &self.finality)?,
            reporters,
            readings,
        })
    }
}

struct ReadingRow {
    start_ms: i64,
    policy: i32,
    kind: String,
    low: Option<String>,
    median: Option<String>,
    high: Option<String>,
    since_ms: Option<i64>,
    learned_interval_ms: Option<i64>,
}

impl ReadingRow {
    fn read(&self) -> Result<Reading, CorruptRow> {
        let row = Row::new("readings", format_args!("{} policy {}", self.start_ms, self.policy));
        let value = row.interval(
            ["low", "median", "high"],
            [self.low.as_deref(), self.median.as_deref(), self.high.as_deref()],
        )?;
        let since = self.since_ms.map(|ms| row.time("since", ms)).transpose()?;
        match (self.kind.as_str(), value, since, self.learned_interval_ms) {
            ("fresh", Some(value), None, None) => Ok(Reading::Fresh(value)),
            ("held", Some(value), Some(since), None) => Ok(Reading::Held { value, since }),
            ("no_samples", None, since, Some(learned)) => Ok(Reading::NoSamples {
                since,
                learned_interval_ms: row.counter("learned_interval_ms", learned)?,
            }),
            ("unknown", None, None, None) => Ok(Reading::Unknown),
            (kind, ..) => Err(row.corrupt("kind", format!("{kind:?} does not go with the other columns"))),
        }
    }
}

struct FindingRow {
    height: i64,
    ordinal: i32,
    cycle: i64,
    policy: Option<String>,
    symptom: String,
    window_index: i64,
    since_ms: i64,
    observed_low: Option<String>,
    observed_median: Option<String>,
    observed_high: Option<String>,
    against: Option<String>,
}

impl FindingRow {
    fn read(self) -> Result<StoredFinding, CorruptRow> {
        let row = Row::new("findings", format_args!("height {} ordinal {}", self.height, self.ordinal));
        let observed = row.interval(
            ["observed_low", "observed_median", "observed_high"],
            [self.observed_low.as_deref(), self.observed_median.as_deref(), self.observed_high.as_deref()],
        )?;
        let finding = Finding {
            symptom: row.named("symptom", &self.symptom)?,
            window: WindowIndex::new(row.counter("window_index", self.window_index)?),
            since: row.time("since", self.since_ms)?,
            observed,
            against: self.against.as_deref().map(|against| row.quantity("against", against)).transpose()?,
            policy: self.policy,
        };
        Ok(StoredFinding { cycle: Cycle::new(row.counter("cycle", self.cycle)?), finding })
    }
}

struct ReceiptRow {
    height: i64,
    ordinal: i32,
    target: String,
    outcome: String,
    refusal: Option<String>,
    state_before: String,
    state_after: String,
    agent_time_ms: i64,
    envelope: Vec<u8>,
}

impl ReceiptRow {
    fn read(self, plan: Digest) -> Result<StoredReceipt, CorruptRow> {
        let row = Row::new("receipts", format_args!("height {} ordinal {}", self.height, self.ordinal));
        let outcome = match (self.outcome.as_str(), self.refusal.as_deref()) {
            ("applied", None) => Outcome::Applied {},
            ("noop", None) => Outcome::Noop {},
            ("reverted", None) => Outcome::Reverted {},
            ("partial", None) => Outcome::Partial {},
            ("refused", Some(why)) => Outcome::Refused { why: row.named("refusal", why)? },
            (outcome, _) => {
                return Err(row.corrupt("outcome", format!("{outcome:?} does not go with refusal")));
            }
        };
        Ok(StoredReceipt {
            plan,
            outcome,
            before: row.state("state_before", &self.state_before)?,
            after: row.state("state_after", &self.state_after)?,
            at: row.time("agent_time", self.agent_time_ms)?,
            target: row.target("target", self.target)?,
            envelope: self.envelope,
        })
    }
}
