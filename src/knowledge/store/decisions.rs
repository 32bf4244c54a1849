//! Rows of what was decided: logged plans with their certificates, heads, receipts, and refused commands.

use sqlx::PgConnection;

use super::{
    apply::{APPLY_TIMEOUT, Place},
    connect::Writer,
    error::{ApplyError, RecordHeadError, StatementError},
    values::{Named as _, Row, column_i64, counter, state_json, text, time_ms},
};
use crate::{
    knowledge::{
        certified::Certified,
        change::{Effect, PlanRefusal, ReceiptRefusal, ReportRefusal, Turn},
        evidence::VerifiedEvidence,
        fold::{EvidenceRefusal, OperatorRefusal},
        head::Head,
        operator_request::VerifiedOperatorRequest,
        plan::Plan,
        receipt::{Outcome, Receipt},
    },
    types::{Digest, Height, ReplicaIndex, TargetId},
};

/// A refusal's detail may repeat what a stranger sent: so many characters are enough to see what it was.
const DETAIL_CHARACTERS_MAX: usize = 500;

/// Stores a logged plan, its envelope and each signature.
pub(super) async fn insert_plan(
    connection: &mut PgConnection,
    place: Place,
    certified: &Certified<Plan>,
) -> Result<(), ApplyError> {
    let (plan, envelope) = (certified.document(), certified.envelope());
    let digest = certified.digest();
    let digest = digest.as_bytes().as_slice();
    sqlx::query!(
        "INSERT INTO plans (digest, target, seq, epoch, prev, policy, evidence, desired, rollback,
                            issued_at, not_before, expires_at, body, logged_at, height)
         VALUES ($1, $2, $3, $4, $5, $6, $7, ($8::text)::jsonb, ($9::text)::jsonb, from_unix_ms($10),
                 from_unix_ms($11), from_unix_ms($12), $13, from_unix_ms($14), $15)",
        digest,
        plan.target.as_str(),
        counter("plans", "seq", plan.seq.number())?,
        counter("plans", "epoch", plan.epoch.number())?,
        plan.prev.as_bytes().as_slice(),
        plan.policy.as_bytes().as_slice(),
        plan.evidence.as_bytes().as_slice(),
        state_json(&plan.desired),
        state_json(&plan.rollback),
        time_ms(plan.issued_at),
        time_ms(plan.not_before),
        time_ms(plan.expires_at),
        envelope.unverified_body(),
        time_ms(place.agreed_time),
        place.height,
    )
    .execute(&mut *connection)
    .await
    .map_err(StatementError::on("plans"))?;
    sqlx::query!("INSERT INTO certificates (plan, envelope) VALUES ($1, $2)", digest, envelope.to_json())
        .execute(&mut *connection)
        .await
        .map_err(StatementError::on("certificates"))?;
    let (keys, signatures): (Vec<_>, Vec<_>) = envelope
        .signatures()
        .iter()
        .map(|(key, signature)| (key.as_bytes().to_vec(), signature.as_bytes().to_vec()))
        .unzip();
    sqlx::query!(
        "INSERT INTO certificate_signatures (plan, keyid, signature)
         SELECT $1, keyid, signature FROM UNNEST($2::bytea[], $3::bytea[]) AS s (keyid, signature)",
        digest,
        &keys,
        &signatures,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("certificate_signatures"))?;
    Ok(())
}

/// Stores what plans were derived from, once: it is named by its content.
pub(super) async fn insert_bundle(
    connection: &mut PgConnection,
    height: Height,
    bundle: &[u8],
) -> Result<(), ApplyError> {
    let digest = Digest::of(bundle);
    sqlx::query!(
        "INSERT INTO evidence_bundles (digest, height, bundle) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING",
        digest.as_bytes().as_slice(),
        counter("evidence_bundles", "height", height.number())?,
        bundle,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("evidence_bundles"))?;
    Ok(())
}

/// Whether the plan is stored.
pub(super) async fn has_plan(connection: &mut PgConnection, plan: Digest) -> Result<bool, ApplyError> {
    let stored = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM plans WHERE digest = $1) AS "stored!""#,
        plan.as_bytes().as_slice()
    );
    Ok(stored.fetch_one(connection).await.map_err(StatementError::on("plans"))?)
}

/// Stores a derived head. When its certificate came first, the row is there and must be of the same bytes.
pub(super) async fn insert_head(
    connection: &mut PgConnection,
    place: Place,
    head: &Head,
) -> Result<(), ApplyError> {
    let body = head.to_bytes();
    let digest = Digest::of(&body);
    let stored = sqlx::query_scalar!(
        "INSERT INTO heads AS h (epoch, shard, number, digest, agreed_time, body, height)
         VALUES ($1, $2, $3, $4, from_unix_ms($5), $6, $7)
         ON CONFLICT (shard, epoch, number) DO UPDATE SET height = excluded.height
         RETURNING h.digest",
        counter("heads", "epoch", head.epoch.number())?,
        i32::from(head.shard.number()),
        counter("heads", "number", head.number.number())?,
        digest.as_bytes().as_slice(),
        time_ms(head.time),
        body,
        place.height,
    )
    .fetch_one(connection)
    .await
    .map_err(StatementError::on("heads"))?;
    let stored = Row::new("heads", head.number).digest("digest", &stored)?;
    if stored == digest {
        return Ok(());
    }
    let height = Height::new(u64::try_from(place.height).unwrap_or_default());
    Err(ApplyError::Diverged { what: "the derived head", height, stored, got: digest })
}

impl Writer {
    /// Stores a head's certificate, whether or not the block that derives the head is applied yet. A second
    /// certificate of the same head changes nothing.
    ///
    /// # Errors
    /// [`RecordHeadError`]; on [`RecordHeadError::Diverged`] this replica's state contradicts a quorum's.
    pub async fn record_certified_head(
        &mut self,
        certified: &Certified<Head>,
    ) -> Result<(), RecordHeadError> {
        match tokio::time::timeout(APPLY_TIMEOUT, self.record_in_time(certified)).await {
            Ok(result) => result,
            Err(_) => Err(RecordHeadError::TimedOut),
        }
    }

    async fn record_in_time(&mut self, certified: &Certified<Head>) -> Result<(), RecordHeadError> {
        let head = certified.document();
        let digest = certified.digest();
        let counter = |column, value: u64| {
            i64::try_from(value).map_err(|_| RecordHeadError::OutOfRange { column, value })
        };
        let same = sqlx::query_scalar!(
            r#"INSERT INTO heads AS h (epoch, shard, number, digest, agreed_time, body, envelope)
               VALUES ($1, $2, $3, $4, from_unix_ms($5), $6, $7)
               ON CONFLICT (shard, epoch, number) DO UPDATE
                   SET envelope = CASE
                       WHEN h.digest = excluded.digest THEN coalesce(h.envelope, excluded.envelope)
                       ELSE h.envelope
                   END
               RETURNING h.digest = $4 AS "same!""#,
            counter("epoch", head.epoch.number())?,
            i32::from(head.shard.number()),
            counter("number", head.number.number())?,
            digest.as_bytes().as_slice(),
            time_ms(head.time),
            certified.envelope().unverified_body(),
            certified.envelope().to_json(),
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(StatementError::on("heads"))?;
        if same { Ok(()) } else { Err(RecordHeadError::Diverged { certified: digest }) }
    }
}

/// Stores a receipt and moves its plan's state. As in the fold, a refusal takes nothing back: another agent, or a
/// later look, refused what is in force or was taken back already.
pub(super) async fn insert_receipt(
    connection: &mut PgConnection,
    place: Place,
    receipt: &Receipt,
    envelope: &[u8],
    turn: Turn,
) -> Result<(), ApplyError> {
    let (outcome, refusal) = match &receipt.outcome {
        Outcome::Applied {} => ("applied", None),
        Outcome::Noop {} => ("noop", None),
        Outcome::Refused { why } => ("refused", Some(why.column_name())),
        Outcome::Reverted {} => ("reverted", None),
        Outcome::Partial {} => ("partial", None),
    };
    sqlx::query!(
        "INSERT INTO receipts (height, ordinal, target, seq, plan, outcome, refusal, state_before, state_after,
                               agent_time, counter, refused_documents, envelope)
         VALUES ($1, $2, $3, $4, $5, $6, $7, ($8::text)::jsonb, ($9::text)::jsonb, from_unix_ms($10),
                 $11, $12, $13)",
        place.height,
        place.ordinal,
        receipt.target.as_str(),
        column_i64(receipt.seq.number()),
        receipt.plan.as_bytes().as_slice(),
        outcome,
        refusal,
        state_json(&receipt.before),
        state_json(&receipt.after),
        time_ms(receipt.at),
        column_i64(receipt.counter),
        column_i64(receipt.refused_documents),
        envelope,
    )
    .execute(&mut *connection)
    .await
    .map_err(StatementError::on("receipts"))?;
    match turn {
        Turn::Newest => {}
        // A newer receipt of the agent has told what became of the plan.
        Turn::Late => return Ok(()),
    }
    sqlx::query!(
        "UPDATE plans SET state = $2 WHERE digest = $1 AND ($2 <> 'refused' OR state IN ('logged', 'refused'))",
        receipt.plan.as_bytes().as_slice(),
        outcome,
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("plans"))?;
    Ok(())
}

/// Stores an operator's request that took effect.
pub(super) async fn insert_operator_request(
    connection: &mut PgConnection,
    place: Place,
    request: &VerifiedOperatorRequest,
) -> Result<(), ApplyError> {
    let (signed, digest) = (request.request(), request.digest());
    sqlx::query!(
        "INSERT INTO operator_requests (height, ordinal, digest, operator, kind, counter, agreed_time, body, envelope)
         VALUES ($1, $2, $3, $4, $5, $6, from_unix_ms($7), $8, $9)",
        place.height,
        place.ordinal,
        digest.as_bytes().as_slice(),
        request.operator().name,
        signed.request.kind(),
        column_i64(signed.counter),
        time_ms(place.agreed_time),
        request.envelope().unverified_body(),
        request.envelope().to_json(),
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("operator_requests"))?;
    Ok(())
}

/// Stores what is proven of a replica.
pub(super) async fn insert_evidence(
    connection: &mut PgConnection,
    place: Place,
    evidence: &VerifiedEvidence,
) -> Result<(), ApplyError> {
    let (about, digest) = (text(&evidence.slot().to_string()), evidence.digest());
    sqlx::query!(
        "INSERT INTO evidence (height, ordinal, digest, offender, kind, about, agreed_time, document)
         VALUES ($1, $2, $3, $4, $5, $6, from_unix_ms($7), $8)",
        place.height,
        place.ordinal,
        digest.as_bytes().as_slice(),
        i32::from(evidence.offender().place()),
        evidence.kind().as_str(),
        about,
        time_ms(place.agreed_time),
        evidence.to_json(),
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("evidence"))?;
    Ok(())
}

/// Stores the quorum's judgement of a plan.
pub(super) async fn settle_effect(
    connection: &mut PgConnection,
    place: Place,
    plan: Digest,
    effect: Effect,
) -> Result<(), ApplyError> {
    sqlx::query!(
        "UPDATE plans SET effect = $2, settled_at = from_unix_ms($3) WHERE digest = $1",
        plan.as_bytes().as_slice(),
        effect.column_name(),
        time_ms(place.agreed_time),
    )
    .execute(connection)
    .await
    .map_err(StatementError::on("plans"))?;
    Ok(())
}

/// A block's refused commands, gathered for one statement.
#[derive(Default)]
pub(super) struct Refusals {
    ordinal: Vec<i32>,
    command: Vec<String>,
    reason: Vec<String>,
    detail: Vec<Option<String>>,
    plan: Vec<Option<Vec<u8>>>,
    target: Vec<Option<String>>,
    replica: Vec<Option<i32>>,
}

/// What a refused command names, when it could be read.
#[derive(Default)]
struct Subject {
    plan: Option<Vec<u8>>,
    target: Option<String>,
    replica: Option<i32>,
}

impl Refusals {
    pub(super) fn push_plan(&mut self, place: Place, plan: Option<Digest>, why: &PlanRefusal) {
        let (reason, detail) = match why {
            PlanRefusal::NotCertified(detail) => ("not_certified", Some(detail)),
            PlanRefusal::UnknownTarget => ("unknown_target", None),
            PlanRefusal::UnknownPolicy => ("unknown_policy", None),
            PlanRefusal::Superseded => ("superseded", None),
            PlanRefusal::Late => ("late", None),
            PlanRefusal::Duplicate => ("duplicate", None),
            PlanRefusal::Stopped => ("stopped", None),
            PlanRefusal::BeforeResume => ("before_resume", None),
        };
        let plan = plan.map(|digest| digest.as_bytes().to_vec());
        self.push(place, "plan", reason, detail, Subject { plan, ..Subject::default() });
    }

    pub(super) fn push_receipt(&mut self, place: Place, target: Option<&TargetId>, why: &ReceiptRefusal) {
        let (reason, detail) = match why {
            ReceiptRefusal::NotVerified(detail) => ("not_verified", Some(detail.clone())),
            ReceiptRefusal::UnboundKey(key) => ("unbound_key", Some(key.to_string())),
            ReceiptRefusal::UnknownTarget => ("unknown_target", None),
            ReceiptRefusal::UnknownPlan => ("unknown_plan", None),
            ReceiptRefusal::Replayed => ("replayed", None),
        };
        let target = target.map(|target| target.as_str().to_owned());
        self.push(place, "receipt", reason, detail.as_ref(), Subject { target, ..Subject::default() });
    }

    pub(super) fn push_operator_request(&mut self, place: Place, why: &OperatorRefusal) {
        let detail = why.to_string();
        self.push(place, "operator_request", why.as_str(), Some(&detail), Subject::default());
    }

    pub(super) fn push_report(&mut self, place: Place, replica: ReplicaIndex, why: ReportRefusal) {
        let reason = match why {
            ReportRefusal::BadSignature => "bad_signature",
            ReportRefusal::BadBody => "bad_body",
            ReportRefusal::OutsideOpenWindows => "outside_open_windows",
            ReportRefusal::Duplicate => "duplicate",
        };
        let replica = Some(i32::from(replica.place()));
        self.push(place, "report", reason, None, Subject { replica, ..Subject::default() });
    }

    pub(super) fn push_evidence(&mut self, place: Place, offender: ReplicaIndex, why: &EvidenceRefusal) {
        let replica = Some(i32::from(offender.place()));
        let detail = why.to_string();
        self.push(place, "evidence", why.as_str(), Some(&detail), Subject { replica, ..Subject::default() });
    }

    pub(super) fn push_malformed(&mut self, place: Place) {
        self.push(place, "malformed", "malformed", None, Subject::default());
    }

    fn push(&mut self, place: Place, command: &str, reason: &str, detail: Option<&String>, subject: Subject) {
        self.ordinal.push(place.ordinal);
        self.command.push(command.to_owned());
        self.reason.push(reason.to_owned());
        self.detail.push(detail.map(|detail| text(detail).chars().take(DETAIL_CHARACTERS_MAX).collect()));
        self.plan.push(subject.plan);
        self.target.push(subject.target);
        self.replica.push(subject.replica);
    }

    pub(super) async fn insert(self, connection: &mut PgConnection, height: i64) -> Result<(), ApplyError> {
        if self.ordinal.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO refusals (height, ordinal, command, reason, detail, plan, target, replica)
             SELECT $1, ordinal, command, reason, detail, plan, target, replica
             FROM UNNEST($2::integer[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[],
                         $8::integer[])
                 AS r (ordinal, command, reason, detail, plan, target, replica)",
            height,
            &self.ordinal,
            &self.command,
            &self.reason,
            &self.detail as &[Option<String>],
            &self.plan as &[Option<Vec<u8>>],
            &self.target as &[Option<String>],
            &self.replica as &[Option<i32>],
        )
        .execute(connection)
        .await
        .map_err(StatementError::on("refusals"))?;
        Ok(())
    }
}
