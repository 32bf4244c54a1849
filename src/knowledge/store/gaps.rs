//! A database that goes on from a checkpoint: what is needed of the present, and the row that says what is missing.
//!
//! It folds nothing. Invariant: heights that are neither stored nor in a gap are above the applied height.

use sqlx::{Connection as _, PgConnection};
use std::sync::Arc;

use super::{
    apply::{APPLY_TIMEOUT, ApplyOutcome, Place, lock_applied_height, move_applied_height},
    connect::Writer,
    decisions,
    error::{ApplyError, QueryError, StatementError},
    values::{Row, counter, time_ms},
};
use crate::{
    knowledge::{certified::Certified, plan::Plan},
    types::{Digest, Height, UnixMillis, View},
};

/// A checkpoint to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBase {
    /// Its height.
    pub height: Height,
    /// The digest of the block at that height.
    pub block: Digest,
    /// The root of the state after it, which a quorum has signed.
    pub state: Digest,
    /// Agreed time after it.
    pub agreed_time: UnixMillis,
    /// The newest logged plan of each target that has one.
    pub plans: Vec<Arc<Certified<Plan>>>,
}

/// Heights that a database does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogGap {
    /// The first of them.
    pub first: Height,
    /// The last of them.
    pub last: Height,
}

impl Writer {
    /// Goes on from a checkpoint above what is stored, in one transaction: the heights in between stay missing.
    ///
    /// # Errors
    /// As [`Self::apply`].
    #[tracing::instrument(name = "begin at a checkpoint", skip_all, fields(height = %base.height))]
    pub async fn begin_at(&mut self, base: &StoreBase, signed: View) -> Result<ApplyOutcome, ApplyError> {
        match tokio::time::timeout(APPLY_TIMEOUT, self.begin_in_time(base, signed)).await {
            Ok(result) => result,
            Err(_) => Err(ApplyError::TimedOut),
        }
    }

    async fn begin_in_time(&mut self, base: &StoreBase, signed: View) -> Result<ApplyOutcome, ApplyError> {
        let mut transaction = self.connection.begin().await.map_err(StatementError::on("applied_height"))?;
        let below = lock_applied_height(&mut transaction, self.generation).await?;
        if base.height <= below.height {
            return Ok(ApplyOutcome::AlreadyApplied);
        }
        insert_gap(&mut transaction, below.height.next(), base).await?;
        let height = counter("log_gaps", "last_height", base.height.number())?;
        let place = Place { height, ordinal: 0, agreed_time: base.agreed_time, window: self.window };
        for plan in &base.plans {
            if !decisions::has_plan(&mut transaction, plan.digest()).await? {
                decisions::insert_plan(&mut transaction, place, plan).await?;
            }
        }
        move_applied_height(&mut transaction, base.height, base.block, base.agreed_time, signed).await?;
        transaction.commit().await.map_err(StatementError::on("applied_height"))?;
        Ok(ApplyOutcome::Applied)
    }
}

async fn insert_gap(
    connection: &mut PgConnection,
    first: Height,
    base: &StoreBase,
) -> Result<(), ApplyError> {
    sqlx::query!(
        "INSERT INTO log_gaps (first_height, last_height, block, state, agreed_time)
         VALUES ($1, $2, $3, $4, from_unix_ms($5))",
        counter("log_gaps", "first_height", first.number())?,
        counter("log_gaps", "last_height", base.height.number())?,
        base.block.as_bytes().as_slice(),
        base.state.as_bytes().as_slice(),
        time_ms(base.agreed_time),
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("log_gaps"))?;
    Ok(())
}

/// The newest gap, if there is any.
pub(super) async fn read_newest_gap(connection: &mut PgConnection) -> Result<Option<LogGap>, QueryError> {
    let newest =
        sqlx::query!("SELECT first_height, last_height FROM log_gaps ORDER BY first_height DESC LIMIT 1")
            .fetch_optional(connection)
            .await
            .map_err(StatementError::on("log_gaps"))?;
    let Some(newest) = newest else { return Ok(None) };
    let row = Row::new("log_gaps", newest.first_height);
    Ok(Some(LogGap {
        first: Height::new(row.counter("first_height", newest.first_height)?),
        last: Height::new(row.counter("last_height", newest.last_height)?),
    }))
}
