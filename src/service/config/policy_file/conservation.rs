//! `[[conservation]]`: what one source says of itself, as the policy without an action that checks it.
//!
//! Invariant: all three terms are of the source that is named once.

use super::{
    check_policy_name, check_series,
    text::{ConservationText, SeriesText, TermText},
};
use crate::knowledge::{
    genesis::Parameters,
    policy::{Combine, Condition, Indicator, Policy, Statistic},
};
use crate::service::config::error::{ConfigError, Source};
use crate::types::Quantity;

/// The most windows that a check may add up: an hour of windows of ten seconds. A genesis may have some more, because
/// a replay rounds.
const MAX_SUMMED_WINDOWS: u64 = 360;

impl ConservationText {
    pub(super) fn check(self, parameters: &Parameters, source: Source<'_>) -> Result<Policy, ConfigError> {
        check_policy_name(&self.name, source)?;
        let term = |TermText { name, attributes }: TermText| {
            check_series(SeriesText { name, source: Some(self.source.clone()), attributes }, source)
        };
        let (selector, outflow, stock) = (term(self.inflow)?, term(self.outflow)?, term(self.stock)?);
        let tolerance = self.tolerance.get_ref().0;
        if tolerance < Quantity::ZERO {
            return Err(source.error(self.tolerance.span(), "tolerance must not be below zero"));
        }
        let over = self.over.get_ref().0;
        if !(parameters.window..=parameters.window.times(MAX_SUMMED_WINDOWS)).contains(&over) {
            let message = format!("over must be 1 to {MAX_SUMMED_WINDOWS} windows");
            return Err(source.error(self.over.span(), message));
        }
        Ok(Policy {
            name: self.name.into_inner(),
            indicator: Indicator { selector, statistic: Statistic::Increase, combine: Combine::Sum },
            condition: Condition::Conservation { outflow, stock, tolerance, over },
            action: None,
        })
    }
}
