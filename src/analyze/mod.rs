//! Analysis: what the closed windows say about each policy's condition.
//!
//! It is a pure, replicated computation: every replica feeds it the same closed windows in the same order
//! and holds the same state. It proposes nothing and knows no target; that is planning's business.
//! Invariant: a [`Threshold`] or [`Absence`] finding holds for every value that an honest replica may have
//! seen in the window.
//!
//! [`Threshold`]: crate::knowledge::finding::Symptom::Threshold
//! [`Absence`]: crate::knowledge::finding::Symptom::Absence
//!
//! The detectors in [`series`] look at samples of one series instead of closed windows; no policy uses them.
//!
//! # The rules
//!
//! For every window:
//!
//! - **W1** Each policy has one detector, which looks once at each closed window, in the windows' order.
//! - **W2** Findings are level-triggered: a symptom is found again in every window in which it lasts, with
//!   the agreed time `since` which it lasts. Nothing is found for a symptom that has ended.
//! - **W3** A window that closed unconfirmed is a finding about the loop itself. A symptom that its readings
//!   would show is found as `Unconfirmed`. No detector learns from such a window.
//! - **W4** A reading of which too little is known, in a confirmed window, is an `Unconfirmed` finding of its
//!   policy. So is every reading that the window does not have at all.
//! - **W5** After a window of which a detector learns nothing, and after a gap, a symptom that has not yet
//!   lasted for its hold time begins anew: the hold time must be seen whole. One that has, goes on.
//! - **W6** Of a policy whose indicator counts events (an increase), the newest `Threshold` finding of new samples is
//!   remembered: what has happened stays true when it happens no longer. What it is still worth is planning's to say.
//!
//! For thresholds, where a value *shows* the symptom if it is at or past `enter`, or, while the symptom lasts,
//! if it has not come back to `leave`:
//!
//! - **T1** The running state advances on the median: a median that shows the symptom begins it or lets it
//!   last, one that does not ends it. The median lies between two honest values, so no faulty replica moves it
//!   where no honest one is.
//! - **T2** The hold time is counted in event time, from the close of the window in which the symptom began,
//!   so that late closings neither shorten nor stretch it.
//! - **T3** Once the hold time has passed, the test is made over the interval, in each window anew: if every
//!   point shows the symptom, it is a `Threshold` finding; if only some do, it is `Disputed`; else nothing.
//!   A held value counts as the value that it repeats.
//! - **T4** No samples end the symptom: there is no value that could show it. Their absence is for another
//!   policy to find.
//!
//! For absence:
//!
//! - **A1** A series that was never seen is not absent: it may not exist yet, or its name may be misspelt.
//!   Planning's report says so.
//! - **A2** A series whose interval is not learned yet is not absent.
//! - **A3** Silence is counted in event time, from the close of the last window with samples to the close of
//!   this one: it is at least as long as that, wherever in its window the last sample lay. Silence of at least
//!   the allowed number of learned intervals is an `Absence` finding, since that earlier close.
//! - **A4** A value, fresh or held, ends it at once.
//!
//! For conservation, where one source says what flowed in, what flowed out, and what is there:
//!
//! - **B1** Each of the three terms is the sum of its series' merged intervals in the window: of the flows, by how much
//!   they rose; of the stock, its last value. A sum or a difference of intervals holds those of all their points.
//! - **B2** A window in which no term has a series says nothing: what flowed shows in the next one that has.
//! - **B3** After a window in which only some terms have series, or another number of them than before, after one of
//!   which nothing is learned (W3, W4), and after a gap, it begins anew: what was not seen may have flowed.
//! - **B4** Flows are added up from the first window after the span's beginning, which is the newest window at least
//!   `over` ago, in event time, or the oldest since it began anew. Of that window only the stock counts.
//! - **B5** If for every choice of points more than the tolerance is missing, or for every choice more than that is too
//!   much, it is a `Threshold` finding, about what is missing and against the tolerance, since agreed time of the
//!   window that showed it first; if so only for some, it is `Disputed`; else nothing.

//!
//! For capacity, where a policy's indicator counts the jobs that arrive, and the model reads three more: how long the
//! finished jobs were worked on, how many they were, and how many jobs wait:
//!
//! - **C1** A job takes the time that the finished jobs took, divided by their number, older windows counted less: each
//!   window's share is 15 sixteenths of the next one's. Nothing is found before a job was finished.
//! - **C2** The rate of arrivals is an increase over the time since the last window with samples, for engines that
//!   export less often than windows close.
//! - **C3** It is smoothed: what is new counts by its share of itself and `smooth`. The trend is by how much the middle rate
//!   rose, a quarter of each change taken up; the forecast is the middle rate and what a rising trend adds to it within
//!   `lead`. A falling trend takes nothing away: the forecast only raises.
//! - **C4** The load asks for rate or forecast, whichever is more, times the job's time, divided by the utilization.
//! - **C5** The backlog asks for what works it off within `drain`, beside that.
//! - **C6** Both are computed for the lowest, the middle and the highest of what may be true: quotients take their divisors from
//!   the other end. The lower end is that of the window; the upper end is the highest of the last `keep`. So there are more
//!   slots as soon as every choice asks for more, and fewer once every choice of that whole time was content with fewer.
//! - **C7** It is found in every window in which all is known; in others nothing is. A window about which nothing is
//!   known ends a trend.

mod absence;
mod analyzer;
mod capacity;
mod conservation;
pub mod series;
mod threshold;

pub use analyzer::Analyzer;
