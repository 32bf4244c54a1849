//! Days of windows: made ahead of their first row, dropped when they are older than what is kept.
//!
//! A day is counted by agreed time, never by a clock, so that a database that is rebuilt from the journal ends
//! with the same days. Invariant: nobody who reads or writes other days waits: a day is detached concurrently,
//! and what cannot be had within the session's lock timeout is left for the next time.
//!
//! A day's table that is detached takes no rows and keeps its name from the one that would: it is a leftover of a
//! sweep whose last step failed, and is dropped however young it is.

use sqlx::AssertSqlSafe;
use std::num::NonZeroU32;

use super::{
    apply::APPLY_TIMEOUT,
    connect::Writer,
    error::{ApplyError, StatementError},
    values::time_ms,
};
use crate::types::{Millis, UnixMillis};

/// How many days after agreed time's own have their partitions already: one, so that midnight finds them there.
pub const AHEAD_DAYS: u32 = 1;

/// How many tables one sweep drops at most, so that blocks wait for milliseconds, also after a long pause.
const TABLES_PER_SWEEP: i64 = 8;

/// Days are cut in UTC and have no leap seconds.
const DAY: Millis = Millis::from_secs(86_400);

/// What a sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// How many tables were dropped.
    pub dropped: u64,
    /// Whether there may be more to drop at once.
    pub has_more: bool,
}

struct OldTable {
    name: String,
    parent: Option<String>,
    is_pending: bool,
}

impl Writer {
    /// Makes the partitions of the coming day and drops days that ended at least `keep_days` before the day of
    /// `now`, which is agreed time.
    ///
    /// # Errors
    /// [`ApplyError::Statement`] when the server refused, for one because somebody reads an old day for longer
    /// than a lock is waited for: the connection is as good as before. [`ApplyError::TimedOut`] when it says
    /// nothing. What was begun is finished by a later sweep.
    #[tracing::instrument(name = "sweep days", skip_all)]
    pub async fn sweep(&mut self, keep_days: NonZeroU32, now: UnixMillis) -> Result<Swept, ApplyError> {
        in_time(self.make_days(now)).await?;
        self.drop_before(now.minus(DAY.times(u64::from(keep_days.get())))).await
    }

    /// Drops tables that an earlier sweep has detached, or half detached, and no more: blocks may need their days,
    /// when more days are kept than before or an older backup is caught up.
    ///
    /// # Errors
    /// As [`Self::sweep`].
    pub async fn drop_leftovers(&mut self) -> Result<Swept, ApplyError> {
        self.drop_before(UnixMillis::ZERO).await
    }

    async fn drop_before(&mut self, day: UnixMillis) -> Result<Swept, ApplyError> {
        let old = in_time(self.tables_to_drop(day)).await?;
        let has_more = i64::try_from(old.len()).is_ok_and(|count| count == TABLES_PER_SWEEP);
        let mut dropped = 0;
        for table in old {
            self.drop_day(table).await?;
            dropped += 1;
        }
        Ok(Swept { dropped, has_more })
    }

    async fn make_days(&mut self, now: UnixMillis) -> Result<(), StatementError> {
        sqlx::query!(
            "SELECT ensure_day_partitions(from_unix_ms($1) + day * interval '24 hours')
             FROM generate_series(0, $2::integer) AS day",
            time_ms(now),
            i32::try_from(AHEAD_DAYS).unwrap_or_default(),
        )
        .execute(&mut self.connection)
        .await
        .map_err(StatementError::on("merged_windows"))?;
        Ok(())
    }

    /// The oldest tables of the days before the day of a time, and leftovers of any day.
    async fn tables_to_drop(&mut self, day: UnixMillis) -> Result<Vec<OldTable>, StatementError> {
        sqlx::query_as!(
            OldTable,
            r#"SELECT c.relname AS "name!", p.relname AS "parent?",
                      coalesce(i.inhdetachpending, false) AS "is_pending!"
               FROM pg_class c
               LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
               LEFT JOIN pg_class p ON p.oid = i.inhparent
               WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
                   AND c.relname ~ '^(merged_windows|window_values|readings|findings)_[0-9]{8}$'
                   AND (p.oid IS NULL OR i.inhdetachpending
                        OR right(c.relname, 8) < to_char(from_unix_ms($1) AT TIME ZONE 'UTC', 'YYYYMMDD'))
               ORDER BY right(c.relname, 8), c.relname LIMIT $2"#,
            time_ms(day),
            TABLES_PER_SWEEP,
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(StatementError::on("merged_windows"))
    }

    async fn drop_day(&mut self, table: OldTable) -> Result<(), ApplyError> {
        let OldTable { name, parent, is_pending } = table;
        if let Some(parent) = parent {
            let how = if is_pending { "FINALIZE" } else { "CONCURRENTLY" };
            in_time(self.run(format!("ALTER TABLE {parent} DETACH PARTITION {name} {how}"))).await?;
        }
        // Nobody finds the table through its parent any more.
        in_time(self.run(format!("DROP TABLE {name}"))).await
    }

    /// Runs a statement whose names were read from the catalogue by a strict pattern.
    async fn run(&mut self, statement: String) -> Result<(), StatementError> {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut self.connection)
            .await
            .map_err(StatementError::on("merged_windows"))?;
        Ok(())
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, StatementError>>) -> Result<T, ApplyError> {
    match tokio::time::timeout(APPLY_TIMEOUT, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApplyError::TimedOut),
    }
}
