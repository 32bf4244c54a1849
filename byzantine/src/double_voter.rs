//! The double voter: it votes as the protocol says, and a moment later for another block in the same view.
//!
//! Else it is honest, but for having seen no sample. Invariant: both votes carry its valid signature, so either of them
//! alone could be an honest replica's.

use quorate::{
    consensus::{
        Block, Message, PROTOCOL_HOTSTUFF2, Vote,
        task::{Frame, Request},
        transport::Class,
    },
    cycle::Output,
    knowledge::observation::WindowSummary,
    service::{clock::wall_clock, config::ReplicaConfig, replica::Membership},
    types::{Digest, ReplicaIndex, SecretKey, StatementKind, statement_bytes},
};

use crate::member::{Member, Moment, ordered};

/// Votes twice until it is asked to end.
pub(crate) async fn run(config: &ReplicaConfig, membership: Membership) -> anyhow::Result<()> {
    let (me, key) = (membership.me, membership.key.clone());
    let mut member = Member::join(config, membership).await?;
    loop {
        match member.next().await {
            Moment::Moved => {}
            Moment::Committed(block) => vote_again(&member, &block, me, &key)?,
            // It serves no door, so it has missed all of it.
            Moment::Window(window) => {
                member.cycle.report(window, WindowSummary::default(), true, wall_clock());
            }
            Moment::Ended => return Ok(()),
        }
        let (mut notes, mut then, mut submit) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(output) = member.cycle.poll_output() {
            match output {
                Output::Seal(seal) => notes.push(borsh::to_vec(&seal)?),
                Output::Endorse(endorsement) => then.push(endorsement),
                Output::Submit(command) => submit.push(ordered(command)?),
                Output::Decided(_)
                | Output::Folded(_)
                | Output::PlanCertified(_)
                | Output::HeadCertified(_)
                | Output::Alarm(_) => {}
            }
        }
        member.requests.send(Request::Endorse { notes, then, submit, durable: None }).await?;
    }
}

/// Tells all peers that it voted for something else than this block in its view.
fn vote_again(member: &Member, block: &Block, me: ReplicaIndex, key: &SecretKey) -> anyhow::Result<()> {
    let (view, height, other) = (block.view(), block.height(), Digest::of(block.id().as_bytes()));
    let domain = member.cycle.state().committee().domain(PROTOCOL_HOTSTUFF2);
    let statement = statement_bytes(StatementKind::Vote, &domain, &borsh::to_vec(&(view, height, other))?);
    let vote = Vote { view, height, block: other, voter: me, signature: key.sign(&statement) };
    let frame = borsh::to_vec(&Frame::Consensus(Message::Vote(vote)))?;
    Ok(member.links.broadcast(&frame.into(), Class::Urgent)?)
}
