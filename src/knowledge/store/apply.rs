//! One block, one transaction, exactly once.
//!
//! The transaction first locks the row that says how far the log is applied, so that two attempts at one
//! height come one after the other and the second sees that there is nothing left to do.

use sqlx::{Connection as _, PgConnection};
use std::{sync::Arc, time::Duration};

use super::{
    connect::Writer,
    decisions::{self, Refusals},
    error::{ApplyError, StatementError},
    values::{Row, counter, time_ms},
    windows::{self, Findings},
};
use crate::{
    knowledge::change::Change,
    types::{Digest, Height, Millis, ReplicaIndex, UnixMillis, View},
};

/// One block's transaction takes milliseconds; past this the connection is taken for dead. It is above what the
/// server itself gives a lock or a statement, so that the server's reason is heard when it has one.
pub(super) const APPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// What consensus says of a committed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Its height; the first block has height 1.
    pub height: Height,
    /// The view it was proposed in.
    pub view: View,
    /// Its digest.
    pub digest: Digest,
    /// The digest of the block below.
    pub parent: Digest,
    /// Who proposed it.
    pub proposer: ReplicaIndex,
    /// How many commands it carries.
    pub commands: u64,
}

/// A committed block with what the fold made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedBlock {
    /// What consensus says of it.
    pub header: BlockHeader,
    /// What its commands changed, in order.
    pub changes: Vec<Change>,
    /// What plans that were derived at it name as their evidence, as bytes.
    pub bundles: Vec<Arc<[u8]>>,
}

/// What became of a block that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// It is stored now.
    Applied,
    /// It was stored before; nothing changed.
    AlreadyApplied,
}

/// Where in the log and in agreed time a change stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) height: i64,
    pub(super) ordinal: i32,
    pub(super) agreed_time: UnixMillis,
    pub(super) window: Millis,
}

impl Writer {
    /// Stores a block's changes in one transaction, unless they are stored already.
    ///
    /// `signed` is the newest view in which this replica durably signed anything: a journal that is shown
    /// later and holds less was lost.
    ///
    /// # Errors
    /// [`ApplyError`]; [`ApplyError::is_transient`] says whether to try the same block again later, over
    /// another connection.
    #[tracing::instrument(name = "store block", skip_all, fields(height = %block.header.height))]
    pub async fn apply(&mut self, block: &AppliedBlock, signed: View) -> Result<ApplyOutcome, ApplyError> {
        match tokio::time::timeout(APPLY_TIMEOUT, self.apply_in_time(block, signed)).await {
            Ok(result) => result,
            Err(_) => Err(ApplyError::TimedOut),
        }
    }

    async fn apply_in_time(
        &mut self,
        block: &AppliedBlock,
        signed: View,
    ) -> Result<ApplyOutcome, ApplyError> {
        let mut transaction = self.connection.begin().await.map_err(StatementError::on("applied_height"))?;
        let below = lock_applied_height(&mut transaction, self.generation).await?;
        let header = &block.header;
        if Height::ZERO < header.height && header.height <= below.height {
            return already_applied(&mut transaction, header).await;
        }
        if header.height != below.height.next() {
            return Err(ApplyError::OutOfOrder { expected: below.height.next(), got: header.height });
        }
        if below.height > Height::ZERO && header.parent != below.digest {
            return Err(ApplyError::Diverged {
                what: "the block",
                height: below.height,
                stored: below.digest,
                got: header.parent,
            });
        }
        insert_header(&mut transaction, header).await?;
        let agreed_time = insert_changes(&mut transaction, block, below.agreed_time, self.window).await?;
        for bundle in &block.bundles {
            decisions::insert_bundle(&mut transaction, header.height, bundle).await?;
        }
        move_applied_height(&mut transaction, header.height, header.digest, agreed_time, signed).await?;
        transaction.commit().await.map_err(StatementError::on("applied_height"))?;
        Ok(ApplyOutcome::Applied)
    }
}

pub(super) struct Below {
    pub(super) height: Height,
    digest: Digest,
    agreed_time: UnixMillis,
}

pub(super) async fn lock_applied_height(
    connection: &mut PgConnection,
    generation: i64,
) -> Result<Below, ApplyError> {
    let below = sqlx::query!(
        r#"SELECT a.height, a.digest, to_unix_ms(a.agreed_time) AS "agreed_time_ms!", m.generation
           FROM applied_height a CROSS JOIN replica_meta m
           FOR UPDATE OF a FOR SHARE OF m"#
    )
    .fetch_one(connection)
    .await
    .map_err(StatementError::on("applied_height"))?;
    if below.generation != generation {
        return Err(ApplyError::Superseded);
    }
    let row = Row::new("applied_height", "the only one");
    Ok(Below {
        height: Height::new(row.counter("height", below.height)?),
        digest: row.digest("digest", &below.digest)?,
        agreed_time: row.time("agreed_time", below.agreed_time_ms)?,
    })
}

async fn already_applied(
    connection: &mut PgConnection,
    header: &BlockHeader,
) -> Result<ApplyOutcome, ApplyError> {
    let height = counter("block_headers", "height", header.height.number())?;
    let stored = sqlx::query_scalar!("SELECT digest FROM block_headers WHERE height = $1", height)
        .fetch_optional(connection)
        .await
        .map_err(StatementError::on("block_headers"))?;
    // A height in a gap has no row.
    let Some(stored) = stored else { return Ok(ApplyOutcome::AlreadyApplied) };
    let stored = Row::new("block_headers", height).digest("digest", &stored)?;
    if stored == header.digest {
        return Ok(ApplyOutcome::AlreadyApplied);
    }
    Err(ApplyError::Diverged { what: "the block", height: header.height, stored, got: header.digest })
}

async fn insert_header(connection: &mut PgConnection, header: &BlockHeader) -> Result<(), ApplyError> {
    sqlx::query!(
        "INSERT INTO block_headers (height, view, digest, parent, proposer, commands)
         VALUES ($1, $2, $3, $4, $5, $6)",
        counter("block_headers", "height", header.height.number())?,
        counter("block_headers", "view", header.view.number())?,
        header.digest.as_bytes().as_slice(),
        header.parent.as_bytes().as_slice(),
        i32::from(header.proposer.place()),
        counter("block_headers", "commands", header.commands)?,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("block_headers"))?;
    Ok(())
}

/// Stores every change and answers with agreed time after the last one.
async fn insert_changes(
    connection: &mut PgConnection,
    block: &AppliedBlock,
    agreed_time: UnixMillis,
    window: Millis,
) -> Result<UnixMillis, ApplyError> {
    let height = counter("block_headers", "height", block.header.height.number())?;
    let mut findings = Findings::default();
    let mut refusals = Refusals::default();
    let mut place = Place { height, ordinal: 0, agreed_time, window };
    for (change, ordinal) in block.changes.iter().zip(0..) {
        place.ordinal = ordinal;
        match change {
            Change::TimeMoved(time) => place.agreed_time = *time,
            Change::WindowClosed(closed) => windows::insert_window(connection, place, closed).await?,
            Change::Gap { first, last, cycle } => {
                windows::insert_gap(connection, place, *first, *last, *cycle).await?;
            }
            Change::Found { cycle, finding } => findings.push(place, *cycle, finding)?,
            Change::PlanLogged(certified) => decisions::insert_plan(connection, place, certified).await?,
            Change::HeadDerived(head) => decisions::insert_head(connection, place, head).await?,
            Change::ReceiptLogged { receipt, envelope, turn } => {
                decisions::insert_receipt(connection, place, receipt, envelope, *turn).await?;
            }
            Change::EffectSettled { target: _, seq: _, plan, effect } => {
                decisions::settle_effect(connection, place, *plan, *effect).await?;
            }
            Change::PlanRefused { plan, why } => refusals.push_plan(place, *plan, why),
            Change::ReceiptRefused { target, why } => refusals.push_receipt(place, target.as_ref(), why),
            Change::ReportRefused { replica, why } => refusals.push_report(place, *replica, *why),
            Change::OperatorRequestLogged { request, heads: _ } => {
                decisions::insert_operator_request(connection, place, request).await?;
            }
            Change::OperatorRequestRefused { request: _, why } => refusals.push_operator_request(place, why),
            Change::EvidenceLogged(evidence) => {
                decisions::insert_evidence(connection, place, evidence).await?;
            }
            Change::EvidenceRefused { offender, why } => refusals.push_evidence(place, *offender, why),
            Change::Malformed => refusals.push_malformed(place),
        }
    }
    findings.insert(connection, height).await?;
    refusals.insert(connection, height).await?;
    Ok(place.agreed_time)
}

pub(super) async fn move_applied_height(
    connection: &mut PgConnection,
    height: Height,
    digest: Digest,
    agreed_time: UnixMillis,
    signed: View,
) -> Result<(), ApplyError> {
    sqlx::query!(
        "UPDATE applied_height SET height = $1, digest = $2, agreed_time = from_unix_ms($3),
                                   signed_view = greatest(signed_view, $4)",
        counter("applied_height", "height", height.number())?,
        digest.as_bytes().as_slice(),
        time_ms(agreed_time),
        counter("applied_height", "signed_view", signed.number())?,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("applied_height"))?;
    Ok(())
}
