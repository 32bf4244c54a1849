//! The forger: it reports a backlog that nobody posted, and in every control cycle it endorses a plan for every
//! pool that gives it all the slots it may ever have, whatever the cycle says.
//!
//! It takes part in consensus honestly. Invariant: what it signs is well-formed; only that no honest replica
//! derives the same gives it away.

use quorate::{
    consensus::{
        certify::{Endorsement, Subject, SubjectKind},
        task::Request,
    },
    cycle::{Decided, Hold, Output},
    knowledge::{
        observation::{SeriesKey, SeriesSummary, WindowSummary},
        plan::{DesiredState, PLAN_TYPE},
        policy::{Policy, TargetKind},
    },
    service::{clock::wall_clock, config::ReplicaConfig, replica::Membership},
    types::{Quantity, ReplicaIndex, SecretKey, SourceId},
};

use crate::member::{Member, Moment, ordered};

/// Far above any threshold.
const FORGED_BACKLOG: i64 = 1_000_000;

/// Forges until it is asked to end.
pub(crate) async fn run(config: &ReplicaConfig, membership: Membership) -> anyhow::Result<()> {
    let (me, key) = (membership.me, membership.key.clone());
    let mut member = Member::join(config, membership).await?;
    // Its own cycle would count an honest signature, and certify with it.
    member.cycle.hold(Hold::Plans);
    loop {
        match member.next().await {
            Moment::Moved | Moment::Committed(_) => {}
            Moment::Window(window) => {
                let forged = forged_summary(&member.cycle.state().genesis().policies);
                member.cycle.report(window, forged, false, wall_clock());
            }
            Moment::Ended => return Ok(()),
        }
        let (mut notes, mut then, mut submit) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = member.cycle.poll_output() {
            match output {
                Output::Seal(seal) => notes.push(borsh::to_vec(&seal)?),
                // Honest about heads, so that nothing but its plans and samples tells it apart.
                Output::Endorse(endorsement) if endorsement.subject.kind == SubjectKind::Head => {
                    then.push(endorsement);
                }
                Output::Submit(command) => submit.push(ordered(command)?),
                Output::Decided(decided) => then.extend(forged_endorsements(&member, &decided, me, &key)),
                Output::Endorse(_)
                | Output::Folded(_)
                | Output::PlanCertified(_)
                | Output::HeadCertified(_)
                | Output::Alarm(_) => {}
            }
        }
        member.requests.send(Request::Endorse { notes, then, submit, durable: None }).await?;
    }
}

/// A backlog in every series that a policy looks at.
fn forged_summary(policies: &[Policy]) -> WindowSummary {
    let backlog = Quantity::from_i64(FORGED_BACKLOG);
    let level = SeriesSummary::Level { last: backlog, min: backlog, max: backlog, sum: backlog, samples: 1 };
    let airflow = || SourceId::new("airflow").expect("it is a valid name");
    let series = policies.iter().map(|policy| {
        let selector = &policy.indicator.selector;
        let key = SeriesKey {
            source: selector.source.clone().unwrap_or_else(airflow),
            name: selector.name.clone(),
            attributes: selector.attributes.clone(),
            resource: Default::default(),
        };
        (key, level.clone())
    });
    WindowSummary { series: series.collect() }
}

/// Endorsements of plans that fill every pool, in place of the plans that were derived.
fn forged_endorsements(
    member: &Member,
    decided: &Decided,
    me: ReplicaIndex,
    key: &SecretKey,
) -> Vec<Endorsement> {
    let genesis = member.cycle.state().genesis();
    let pools = genesis.targets.iter().filter_map(|target| match target.kind {
        TargetKind::Pool { max, .. } => Some((&target.id, max)),
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } => None,
    });
    pools
        .map(|(target, slots)| {
            let derived = decided.plans.iter().map(|(_, plan)| plan).find(|plan| plan.target == *target);
            let body = match derived {
                Some(plan) => {
                    let mut forged = plan.clone();
                    forged.desired = DesiredState::Slots { slots };
                    forged.to_bytes()
                }
                // Nobody ever reads the bytes of a plan that is not certified: any will do.
                None => format!("{target}: {slots} slots").into_bytes(),
            };
            let subject = Subject {
                kind: SubjectKind::Plan,
                number: decided.cycle.number(),
                of: target.as_str().to_owned(),
            };
            let committee = member.cycle.state().committee();
            Endorsement::sign(subject, PLAN_TYPE, &body, committee, (me, key))
        })
        .collect()
}
