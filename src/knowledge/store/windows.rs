//! Rows of closed windows: the window itself, its readings, its series' values; gaps; findings.

use sqlx::PgConnection;
use std::collections::BTreeMap;

use super::{
    apply::Place,
    error::{ApplyError, StatementError},
    values::{IntervalColumns, Named as _, attributes_json, column_i64, counter, text, time_ms},
};
use crate::{
    knowledge::{
        change::ClosedWindow,
        finding::{Finding, Interval},
        observation::SeriesKey,
        policy::Statistic,
        snapshot::Reading,
    },
    types::{Cycle, Digest, ReplicaIndex, WindowIndex},
};

/// A report may carry 10,000 series: a statement for more rows than this would hold many megabytes at once.
const ROWS_PER_STATEMENT: usize = 10_000;

/// Stores a closed window with its readings and values, and its day's partitions when it is the day's first.
pub(super) async fn insert_window(
    connection: &mut PgConnection,
    place: Place,
    closed: &ClosedWindow,
) -> Result<(), ApplyError> {
    let start_ms = time_ms(closed.window.start(place.window));
    sqlx::query!("SELECT ensure_day_partitions(from_unix_ms($1))", start_ms)
        .execute(&mut *connection)
        .await
        .map_err(StatementError::on("merged_windows"))?;
    let places = |partial: bool| -> Vec<i32> {
        let of_kind = closed.reporters.iter().filter(|(_, is_partial)| *is_partial == partial);
        of_kind.map(|(replica, _): &(ReplicaIndex, bool)| i32::from(replica.place())).collect()
    };
    sqlx::query!(
        "INSERT INTO merged_windows
             (start_at, window_index, cycle, closed_at, finality, reporters, partial_reporters, height)
         VALUES (from_unix_ms($1), $2, $3, from_unix_ms($4), $5, $6, $7, $8)",
        start_ms,
        counter("merged_windows", "window_index", closed.window.index())?,
        counter("merged_windows", "cycle", closed.cycle.number())?,
        time_ms(closed.closed_at),
        closed.finality.column_name(),
        &places(false),
        &places(true),
        place.height,
    )
    .execute(&mut *connection)
    .await
    .map_err(StatementError::on("merged_windows"))?;
    insert_readings(connection, start_ms, &closed.readings).await?;
    insert_values(connection, start_ms, &closed.series).await
}

#[derive(Default)]
struct ReadingColumns {
    policy: Vec<i32>,
    kind: Vec<String>,
    value: IntervalColumns,
    since_ms: Vec<Option<i64>>,
    learned_interval_ms: Vec<Option<i64>>,
}

async fn insert_readings(
    connection: &mut PgConnection,
    start_ms: i64,
    readings: &[Reading],
) -> Result<(), ApplyError> {
    let mut rows = ReadingColumns::default();
    for (reading, policy) in readings.iter().zip(0..) {
        let (kind, value, since, learned) = match reading {
            Reading::Fresh(value) => ("fresh", Some(value), None, None),
            Reading::Held { value, since } => ("held", Some(value), Some(*since), None),
            Reading::NoSamples { since, learned_interval_ms } => {
                ("no_samples", None, *since, Some(column_i64(*learned_interval_ms)))
            }
            Reading::Unknown => ("unknown", None, None, None),
        };
        rows.policy.push(policy);
        rows.kind.push(kind.to_owned());
        rows.value.push(value);
        rows.since_ms.push(since.map(time_ms));
        rows.learned_interval_ms.push(learned);
    }
    sqlx::query!(
        "INSERT INTO readings (start_at, policy, kind, low, median, high, since, learned_interval_ms)
         SELECT from_unix_ms($1), policy, kind, low::numeric, median::numeric, high::numeric,
                from_unix_ms(since_ms), learned_interval_ms
         FROM UNNEST($2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
             AS r (policy, kind, low, median, high, since_ms, learned_interval_ms)",
        start_ms,
        &rows.policy,
        &rows.kind,
        &rows.value.low as &[Option<String>],
        &rows.value.median as &[Option<String>],
        &rows.value.high as &[Option<String>],
        &rows.since_ms as &[Option<i64>],
        &rows.learned_interval_ms as &[Option<i64>],
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("readings"))?;
    Ok(())
}

async fn insert_values(
    connection: &mut PgConnection,
    start_ms: i64,
    series: &BTreeMap<SeriesKey, BTreeMap<Statistic, Interval>>,
) -> Result<(), ApplyError> {
    let keyed: Vec<(Digest, &SeriesKey)> = series.keys().map(|key| (Digest::of_value(key), key)).collect();
    for keys in keyed.chunks(ROWS_PER_STATEMENT) {
        insert_unknown_series(connection, keys).await?;
    }
    let values = keyed.iter().zip(series.values()).flat_map(|((digest, _), statistics)| {
        statistics.iter().map(move |(statistic, interval)| (*digest, *statistic, interval))
    });
    let values: Vec<_> = values.collect();
    for rows in values.chunks(ROWS_PER_STATEMENT) {
        insert_value_rows(connection, start_ms, rows).await?;
    }
    Ok(())
}

async fn insert_value_rows(
    connection: &mut PgConnection,
    start_ms: i64,
    rows: &[(Digest, Statistic, &Interval)],
) -> Result<(), ApplyError> {
    let mut digests = Vec::with_capacity(rows.len());
    let mut statistics = Vec::with_capacity(rows.len());
    let mut values = IntervalColumns::default();
    for (digest, statistic, interval) in rows {
        digests.push(digest.as_bytes().to_vec());
        statistics.push(statistic.column_name().to_owned());
        values.push(Some(interval));
    }
    sqlx::query!(
        "INSERT INTO window_values (start_at, series, statistic, low, median, high)
         SELECT from_unix_ms($1), s.id, v.statistic, v.low::numeric, v.median::numeric, v.high::numeric
         FROM UNNEST($2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[])
             AS v (digest, statistic, low, median, high)
         JOIN series s ON s.digest = v.digest",
        start_ms,
        &digests,
        &statistics,
        &values.low as &[Option<String>],
        &values.median as &[Option<String>],
        &values.high as &[Option<String>],
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("window_values"))?;
    Ok(())
}

/// Adds the series that no window has had yet. Names are long and nearly always known, so only digests are
/// sent to ask.
async fn insert_unknown_series(
    connection: &mut PgConnection,
    keys: &[(Digest, &SeriesKey)],
) -> Result<(), ApplyError> {
    let digests: Vec<Vec<u8>> = keys.iter().map(|(digest, _)| digest.as_bytes().to_vec()).collect();
    let unknown = sqlx::query_scalar!(
        r#"SELECT (position - 1) AS "position!"
           FROM UNNEST($1::bytea[]) WITH ORDINALITY AS k (digest, position)
           WHERE NOT EXISTS (SELECT FROM series s WHERE s.digest = k.digest)"#,
        &digests,
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(StatementError::on("series"))?;
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown = unknown.iter().filter_map(|position| keys.get(usize::try_from(*position).ok()?));
    let mut rows = SeriesColumns::default();
    for (digest, key) in unknown {
        rows.digest.push(digest.as_bytes().to_vec());
        rows.key.push(borsh::to_vec(key).expect("writing to memory does not fail"));
        rows.source.push(text(key.source.as_str()));
        rows.name.push(text(&key.name));
        rows.attributes.push(attributes_json(&key.attributes));
        rows.resource.push(attributes_json(&key.resource));
    }
    sqlx::query!(
        "INSERT INTO series (digest, key, source, name, attributes, resource)
         SELECT digest, key, source, name, attributes::jsonb, resource::jsonb
         FROM UNNEST($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[])
             AS s (digest, key, source, name, attributes, resource)",
        &rows.digest,
        &rows.key,
        &rows.source,
        &rows.name,
        &rows.attributes,
        &rows.resource,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("series"))?;
    Ok(())
}

#[derive(Default)]
struct SeriesColumns {
    digest: Vec<Vec<u8>>,
    key: Vec<Vec<u8>>,
    source: Vec<String>,
    name: Vec<String>,
    attributes: Vec<String>,
    resource: Vec<String>,
}

/// Stores a range of windows that nobody reported.
pub(super) async fn insert_gap(
    connection: &mut PgConnection,
    place: Place,
    first: WindowIndex,
    last: WindowIndex,
    cycle: Cycle,
) -> Result<(), ApplyError> {
    sqlx::query!(
        "INSERT INTO window_gaps (cycle, first_window, last_window, height) VALUES ($1, $2, $3, $4)",
        counter("window_gaps", "cycle", cycle.number())?,
        counter("window_gaps", "first_window", first.index())?,
        counter("window_gaps", "last_window", last.index())?,
        place.height,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("window_gaps"))?;
    Ok(())
}

/// A block's findings, gathered for one statement.
#[derive(Default)]
pub(super) struct Findings {
    ordinal: Vec<i32>,
    cycle: Vec<i64>,
    policy: Vec<Option<String>>,
    symptom: Vec<String>,
    window_index: Vec<i64>,
    window_start_ms: Vec<i64>,
    since_ms: Vec<i64>,
    observed: IntervalColumns,
    against: Vec<Option<String>>,
}

impl Findings {
    pub(super) fn push(&mut self, place: Place, cycle: Cycle, finding: &Finding) -> Result<(), ApplyError> {
        self.ordinal.push(place.ordinal);
        self.cycle.push(counter("findings", "cycle", cycle.number())?);
        self.policy.push(finding.policy.as_deref().map(text));
        self.symptom.push(finding.symptom.column_name().to_owned());
        self.window_index.push(counter("findings", "window_index", finding.window.index())?);
        self.window_start_ms.push(time_ms(finding.window.start(place.window)));
        self.since_ms.push(time_ms(finding.since));
        self.observed.push(finding.observed.as_ref());
        self.against.push(finding.against.map(|quantity| quantity.to_string()));
        Ok(())
    }

    pub(super) async fn insert(self, connection: &mut PgConnection, height: i64) -> Result<(), ApplyError> {
        if self.ordinal.is_empty() {
            return Ok(());
        }
        // A finding may be about a day that none of the block's windows is of.
        sqlx::query!(
            "SELECT ensure_day_partition('findings', day)
             FROM (SELECT DISTINCT date_trunc('day', from_unix_ms(ms), 'UTC') AS day
                   FROM UNNEST($1::bigint[]) AS w (ms)) AS days",
            &self.window_start_ms,
        )
        .execute(&mut *connection)
        .await
        .map_err(StatementError::on("findings"))?;
        sqlx::query!(
            "INSERT INTO findings (height, ordinal, cycle, policy, symptom, window_index, window_start, since,
                                   observed_low, observed_median, observed_high, against)
             SELECT $1, ordinal, cycle, policy, symptom, window_index, from_unix_ms(window_start_ms),
                    from_unix_ms(since_ms), low::numeric, median::numeric, high::numeric, against::numeric
             FROM UNNEST($2::integer[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                         $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[])
                 AS f (ordinal, cycle, policy, symptom, window_index, window_start_ms, since_ms,
                       low, median, high, against)",
            height,
            &self.ordinal,
            &self.cycle,
            &self.policy as &[Option<String>],
            &self.symptom,
            &self.window_index,
            &self.window_start_ms,
            &self.since_ms,
            &self.observed.low as &[Option<String>],
            &self.observed.median as &[Option<String>],
            &self.observed.high as &[Option<String>],
            &self.against as &[Option<String>],
        )
        .execute(connection)
        .await
        .map_err(StatementError::on("findings"))?;
        Ok(())
    }
}
