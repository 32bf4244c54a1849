//! The fold: committed commands, one by one, become the replicated state. It is a pure, total function.
//!
//! It never reads a clock, a file or Postgres, knows nothing of blocks, and derives no findings and no plans.
//! Invariant: equal logs give equal states, equal changes and equal state roots, wherever blocks end.
//!
//! n is the committee's size, f its fault bound, quorum its quorum. A window's close is the first moment
//! after it. Two points in time decide about a window: it is *settled* at close + grace + settle, and *due*
//! at close + deadline; agreed time has passed a point when it is at or after it.
//!
//! # Commands
//!
//! - **C1** Bytes that are no command change nothing ([`Change::Malformed`]). Any other command that is
//!   refused says why, and changes at most what the rules below name.
//! - **C2** A report's or a tick's signature must verify under the key of the replica that it names, in the
//!   committee's domain with protocol 0; else it changes nothing.
//! - **C3** For a report, first its time is taken (T1), then its body is checked: the body's digest must be
//!   the header's, its size and its number of series within their limits; then its window is (W2 to W5).
//! - **C4** After every report and tick, windows are closed (W6 to W9).
//!
//! # Agreed time
//!
//! - **T1** Of each replica, the largest time of a logged report or tick is kept. A report's time counts even
//!   when its body or its window is refused.
//! - **T2** Agreed time is max(previous, min((f+1)-th largest, quorum-th largest + two windows)) over these
//!   times. While fewer than a quorum of replicas have one, there is no agreed time.
//!   The (f+1)-th largest was reached by an honest clock; the second bound keeps f+1 fast clocks from
//!   running away from the rest.
//! - **T3** When agreed time moves, [`Change::TimeMoved`] is given, and heads follow from H2.
//!
//! # Windows
//!
//! - **W1** The first window is the one that contains the first agreed time. Windows close in order.
//! - **W2** A report is refused when there is no agreed time yet, when its window is closed, or when agreed
//!   time has passed the window's due point: nobody reports windows past their deadline.
//! - **W3** A report that was signed before its window's close is refused: nobody can have seen all of it.
//! - **W4** A replica's second report on a window is refused, whatever it says.
//! - **W5** Of each replica the newest 8 open windows are kept: a report on an older one is refused, and a
//!   newer one displaces the replica's oldest. There is no other limit ahead: after a long outage the first
//!   reports lie far ahead of agreed time, which only they can move.
//! - **W6** A window with reports is final when (a) all n replicas' reports are logged; or (b) a quorum's
//!   are, and agreed time has passed its settled point; or (c) agreed time has passed its due point.
//! - **W7** The newest final window closes, and before it, in order, every older window with reports. A
//!   window that closes is *confirmed* when a quorum's reports are logged, else *unconfirmed*.
//! - **W8** A range of windows without reports closes as one gap, just before the next window with reports
//!   closes, however long ago the range was due: it then is one finding, whatever agreed time did meanwhile.
//! - **W9** Every closed window takes the next cycle number; so does a gap, which is no cycle. A replica's
//!   partial report counts for W6 and W7, but not for the merge (M1 in [`super::merge`]).
//! - **W10** A replica submits a tick when some open window has a quorum of reports but not all, is settled
//!   by the replica's clock but not by agreed time, and the replica's own time in the state is before it.
//!
//! # Readings
//!
//! For each policy's indicator, from the merged reports of a closed window (M1 to M7 in [`super::merge`]):
//!
//! - **R1** A merged value is the reading `Fresh`; nothing to be said is `Unknown`.
//! - **R2** "No samples" reads `Held` with the last value while its age, from that window's close to this
//!   one's, is at most 1.5 learned intervals and at most the longest hold; else `NoSamples`.
//! - **R3** The learned interval is the lower median of the newest 8 distances between successive windows
//!   with samples. A distance longer than the longest hold teaches nothing: it is an outage, not a cadence.
//!   Before the first distance the learned interval is 0, so that nothing is held and no absence is measured.
//! - **R4** Only confirmed windows are remembered and teach. A gap, an unconfirmed or an `Unknown` window
//!   between two windows with samples makes their distance teach nothing.
//!
//! # Plans
//!
//! - **P1** A `Certified` command is refused unless its certificate verifies in this epoch's committee, its
//!   target is in the genesis, and its policy too.
//! - **P2** It is refused as a duplicate when it is the target's newest logged plan, and as superseded unless
//!   its `prev` is that plan and its sequence number is above that plan's.
//! - **P3** It is refused as late when agreed time is more than the activation limit after its issue, or when
//!   there is no agreed time yet to compare with.
//! - **P4** Otherwise it is logged, once: it is the target's newest plan, and its body is the next leaf of
//!   the log tree. A head follows (H2). Its certificate is kept as it was ordered, because agents are served it;
//!   which quorum signed it changes nothing else.
//! - **P5** Plans of the last hour of agreed time are remembered for each target, with their policies' names.
//!
//! # Heads
//!
//! - **H1** Targets, sorted by name, are cut into shards of 256.
//! - **H2** A head is derived for every shard when agreed time enters a new slot (agreed time / slot length),
//!   and at once for the target's shard when a plan is logged or a stop or resume is accepted. Its number is
//!   one above the shard's last.
//!
//! # Receipts
//!
//! - **A1** A receipt is refused unless its target is in the genesis, it is signed by exactly one key that is
//!   bound to the target (O10) for this cluster, and the state it reports is of the target's kind.
//! - **A2** It is refused unless it names one of the target's newest 16 logged plans.
//! - **A3** Each is logged once. It is refused when its key's receipt for this target with its counter was logged, when the
//!   counter is more than 64 below the key's newest one, which is further than what is remembered, or when its very body is
//!   that of one of the newest 64 receipts of the target: an agent whose key was changed signs again what waits, and both
//!   keys may be bound.
//! - **A4** Otherwise the target's state is what the agent saw afterwards, unless a receipt for a newer plan was logged
//!   before (an agent that was away tells late what another one has overtaken), or one of its own key with a larger counter
//!   (whoever orders commands may put the older one last). Such a late one is logged and changes nothing else.
//!
//! # Operators
//!
//! - **O1** An operator's request is refused unless exactly one operator of the root signed it, for this cluster
//!   and epoch, and it is well-formed.
//! - **O2** Its counter must be above the newest of the operator's key. It is the newest from then on, even when
//!   a later rule refuses the request: what failed once can never be played again. The very same request in a
//!   second place of the log is refused by a name of its own, because it is sent to several replicas; of the newest one of
//!   each key it is known whether it took effect. It is refused,
//!   and its counter not taken, once agreed time is after its `expires_at`: else a replica that withheld a resume
//!   could lift a later stop with it. Nor is it taken when it is more than 2^44 above the newest: else
//!   one wrong number would leave the key no counter to go on with.
//! - **O3** Its targets must be in the genesis. It takes effect for all the targets that it names, or for none;
//!   "all" means every target to a stop, and to a resume every one that the operator may resume, at least one.
//! - **O4** Any operator may stop any target. Each operator's stop stands by itself: a target is stopped while any
//!   stop of it stands. A stop makes the target's mode at least hold, or revoked; stopping again never lessens.
//! - **O5** An operator of the target's owner lifts all stops of the target, any other only its own; of these, those that
//!   its resume has seen. The resume names, for each operator whose stops are meant, the counter of the newest stop that
//!   its signer saw; a stop stays when its operator is not named or its own newest counter is above the named one: it
//!   came later. Counters rise along the log, so no replica can order a resume after a stop and lift it with it.
//! - **O6** When the last stop is lifted the mode stays, for the newest plan was logged before: it is act again with
//!   the next logged plan, or at once when the target has none.
//! - **O7** A certified plan is refused while its target is stopped, and after that when its sequence number is not
//!   above the cycle in which the last stop was lifted: it was decided before.
//! - **O8** The snapshot names the stopped targets and who stopped them; nothing is planned for these.
//! - **O9** After an accepted stop or resume, a head follows for every shard with one of its targets (H2), though no
//!   mode may have changed; without agreed time, heads come with the first slot and show it.
//! - **O10** An operator of the target's owner binds an agent's key: admissible, no replica's, operator's or owner's,
//!   and not bound to the target; at most 8 are bound to a target at a time and 256 ever. It may take the place of a
//!   bound key in the same step.
//! - **O11** Such an operator unbinds a bound key, but not the target's last.
//! - **O12** The agent's key in the genesis is the first that is bound. The counters of keys outlive their bindings,
//!   so that binding a key again makes no old receipt count.
//!
//! # Effect
//!
//! - **E1** A logged plan is judged once: with the first closed window that ends at or after the plan's
//!   `verify.by`, or, as inconclusive, when a newer plan for its target is logged before.
//! - **E2** It is inconclusive unless the window is confirmed and a logged receipt says that the plan is
//!   applied (or that the target already was as desired), and no later one that it was taken back. A refusal takes
//!   nothing back, nor does a part of the change: another agent, or a later look, refused what is in force.
//! - **E3** Then its policy's reading decides. Threshold: better when the whole interval is at `leave` or on its
//!   healthy side, worse when none of it is. Absence: better with samples, fresh or held, worse with none. All else is
//!   inconclusive,
//!   and so is every plan by a capacity model: its next recommendation is the judgement.
//!
//! # Evidence
//!
//! - **V1** Evidence is refused unless its offender's own signatures prove it ([`super::evidence`]).
//! - **V2** It is refused as a duplicate when an offence of the same kind and about the same thing is proven of the
//!   replica.
//! - **V3** Of each replica and kind the first 4 are logged; more prove nothing more. Nothing follows from them but that
//!   the replica is named.
//! - **V4** It is refused when it is about the plan of a target that is not in the genesis, or the head of no shard. V2 to V4
//!   are looked at before any signature is.
//!
//! # What does not depend on the order of the log
//!
//! A window's reports decide what is merged, not their order. So a closed window's readings and series are
//! equal in every order of the commands in which the same reports are logged before it closes, after equal
//! earlier windows. Which reports those are, and the agreed time at which it closes, may depend on the
//! order: a report that is ordered after the window's closing is refused.
//!
//! [`Change::Malformed`]: super::change::Change::Malformed
//! [`Change::TimeMoved`]: super::change::Change::TimeMoved

mod agreed_time;
mod effect;
mod evidence;
mod operations;
mod readings;
mod state;
mod targets;
mod windows;

#[cfg(test)]
mod tests;

pub use evidence::{EvidenceLog, EvidenceRefusal, MAX_PROOFS, Proof, Proven};
pub use operations::{
    MAX_BOUND_KEYS, MAX_COUNTER_JUMP, MAX_KEYS_EVER_BOUND, Newest, Operations, OperatorRefusal, Parties,
    Permit, Stop,
};
pub use state::{Applied, MAX_REPORT_BODY_BYTES, RestoreError, State};
