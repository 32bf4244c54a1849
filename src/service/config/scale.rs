//! A time scale: the same genesis for a recording that is replayed faster than it happened. It changes spans
//! of time and nothing else; what a policy asks for and what a target allows stay as they are. Invariant: a
//! genesis that was allowed is allowed when scaled.

use crate::knowledge::{
    genesis::{Genesis, Parameters},
    policy::Condition,
};
use crate::types::Millis;

/// Real exporters, relays and disks do not run faster with the replay: no scaled grace is shorter than this,
/// or than a whole window if that is shorter.
const LEAST_GRACE: Millis = Millis::new(100);
/// Nor do reports of a busy machine come sooner: no scaled settle time is shorter.
const LEAST_SETTLE: Millis = Millis::new(300);
/// Nor does consensus order them sooner: no scaled deadline is shorter. It costs nothing while a quorum reports.
const LEAST_DEADLINE: Millis = Millis::new(3000);
/// Nor does a certificate form sooner: no scaled activation limit is shorter.
const LEAST_ACTIVATION_LIMIT: Millis = Millis::new(5000);
/// Agents ask over real networks: no scaled staleness is shorter.
const LEAST_STALE_AFTER: Millis = Millis::new(5000);
/// No span that was not zero becomes zero.
const LEAST_SPAN: Millis = Millis::new(1);

/// How many times faster than it happened a recording is replayed: 1 or more, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u32);

/// A speed that no recording can be replayed at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no speed: a number from 1 to {max} with at most three decimal places", max = Speed::MAX)]
pub struct SpeedError(String);

impl Speed {
    /// As it happened.
    pub const REAL_TIME: Self = Self(1000);
    /// The highest: a window of ten seconds then takes ten milliseconds.
    pub const MAX: u32 = 1000;

    /// Thousandths of real time.
    #[must_use]
    pub const fn as_thousandths(self) -> u32 {
        self.0
    }

    /// The span at this speed: rounded down, and at least a millisecond unless it was zero.
    #[must_use]
    pub fn shorten(self, span: Millis) -> Millis {
        if span == Millis::ZERO {
            return span;
        }
        // The quotient is at most the span, because a speed is at least 1.
        let shortened = u128::from(span.as_millis()) * 1000 / u128::from(self.0);
        Millis::new(u64::try_from(shortened).unwrap_or(u64::MAX)).max(LEAST_SPAN)
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::types::Quantity::from_nanos(i128::from(self.0) * 1_000_000).fmt(f)
    }
}

impl std::str::FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        let refused = || SpeedError(text.to_owned());
        let quantity: crate::types::Quantity = text.parse().map_err(|_| refused())?;
        let thousandths = quantity.times(1000).to_i64().and_then(|number| u32::try_from(number).ok());
        thousandths.filter(|number| (1000..=Self::MAX * 1000).contains(number)).map(Self).ok_or_else(refused)
    }
}

/// The genesis for a replay at a speed: windows and every span of a policy and a target are divided by it.
///
/// Spans that bound what real machines and networks need are not shortened below what they need. Plans per hour
/// stay per real hour: a replay is not a reason to act more often.
#[must_use]
pub fn scaled(genesis: &Genesis, speed: Speed) -> Genesis {
    let mut scaled = genesis.clone();
    scaled.parameters = scaled_parameters(&genesis.parameters, speed);
    for target in &mut scaled.targets {
        target.cooldown = speed.shorten(target.cooldown);
    }
    for policy in &mut scaled.policies {
        match &mut policy.condition {
            Condition::Threshold { hold: span, .. } | Condition::Conservation { over: span, .. } => {
                *span = speed.shorten(*span);
            }
            Condition::Absence { .. } => {}
            Condition::Capacity(capacity) => {
                for span in
                    [&mut capacity.drain, &mut capacity.lead, &mut capacity.smooth, &mut capacity.keep]
                {
                    *span = speed.shorten(*span);
                }
            }
        }
        if let Some(action) = &mut policy.action {
            action.cooldown = speed.shorten(action.cooldown);
            action.verify_within = speed.shorten(action.verify_within);
            // A plan that expires before it may be logged could never be applied.
            let floor = scaled.parameters.activation_limit.times(2).min(action.expiry);
            action.expiry = speed.shorten(action.expiry).max(floor);
        }
    }
    scaled
}

fn scaled_parameters(parameters: &Parameters, speed: Speed) -> Parameters {
    // A floor never makes a span longer than it was in real time.
    let with_floor = |span: Millis, least: Millis| speed.shorten(span).max(least.min(span));
    let window = speed.shorten(parameters.window);
    let grace = with_floor(parameters.grace, LEAST_GRACE).min(window);
    let settle = with_floor(parameters.settle, LEAST_SETTLE);
    let head_slot = speed.shorten(parameters.head_slot).max(window);
    Parameters {
        window,
        grace,
        settle,
        deadline: with_floor(parameters.deadline, LEAST_DEADLINE)
            .max(grace.plus(settle).plus(window.times(2))),
        activation_limit: with_floor(parameters.activation_limit, LEAST_ACTIVATION_LIMIT).max(window),
        head_slot,
        stale_after: with_floor(parameters.stale_after, LEAST_STALE_AFTER).max(head_slot.times(3)),
        longest_hold: speed.shorten(parameters.longest_hold).max(window),
        series_limit: parameters.series_limit,
        checkpoint_interval: parameters.checkpoint_interval,
    }
}

#[cfg(test)]
mod tests;
