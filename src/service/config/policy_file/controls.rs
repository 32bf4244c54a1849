//! A policy's controls as they are written: what may stand beside which action. It does not judge the action itself.
//! Invariant: what is left out is what holds back most: a policy that says nothing is in shadow.

use super::text::ThenText;
use crate::knowledge::policy::{Action, Change, Controls, Mode, TargetKind, Way};
use crate::service::config::error::{ConfigError, Source};

/// The controls that stand beside a change of a target of this kind.
pub(super) fn check_controls(
    then: &ThenText,
    change: Change,
    kind: TargetKind,
    source: Source<'_>,
) -> Result<Controls, ConfigError> {
    let places = [
        ("max_step", then.max_step.as_ref().map(toml::Spanned::span)),
        ("up", then.up.as_ref().map(toml::Spanned::span)),
        ("down", then.down.as_ref().map(toml::Spanned::span)),
    ];
    let allowed = match kind {
        TargetKind::Pool { max_step, .. } => Some(max_step),
        TargetKind::Switch { .. } | TargetKind::Tasks { .. } => None,
    };
    let Some(allowed) = allowed else {
        for (key, place) in places {
            if let Some(place) = place {
                let message = format!("`{key}` is of slots, and {} has none", then.target.get_ref());
                return Err(source.error(place, message));
            }
        }
        return Ok(Controls { mode: then.mode.into(), ..Controls::default() });
    };
    if let Some(own) = &then.max_step {
        let most = *own.get_ref();
        if !(1..=allowed).contains(&most) {
            let message = format!("max_step is from 1 to what the target allows ({allowed})");
            return Err(source.error(own.span(), message));
        }
        if let Change::AddSlots(slots) = change
            && slots.unsigned_abs() > most
        {
            let message = format!("add_slots = {slots} is more than max_step allows");
            return Err(source.error(own.span(), message));
        }
    }
    let way = |open: &Option<toml::Spanned<bool>>| match open.as_ref().map(toml::Spanned::get_ref) {
        None | Some(true) => Way::Open,
        Some(false) => Way::Paused,
    };
    Ok(Controls {
        mode: then.mode.into(),
        max_step: then.max_step.as_ref().map(|own| *own.get_ref()),
        up: way(&then.up),
        down: way(&then.down),
    })
}

/// What an operator should know about a policy's controls.
pub(super) fn note(name: &str, action: &Action) -> Option<String> {
    let Controls { mode, up, down, max_step: _ } = action.controls;
    let is_paused = match (action.change, up, down) {
        (Change::AddSlots(slots), Way::Paused, _) if slots > 0 => true,
        (Change::AddSlots(slots), _, Way::Paused) if slots < 0 => true,
        (_, Way::Paused, Way::Paused) => true,
        (_, Way::Open | Way::Paused, Way::Open | Way::Paused) => false,
    };
    match (is_paused, mode) {
        (true, Mode::Act | Mode::Shadow) => {
            Some(format!("policy {name} never acts: it is paused in the direction in which it would move"))
        }
        (false, Mode::Shadow) => {
            Some(format!("policy {name} is in shadow: it advises and never acts; `mode = \"act\"` lets it"))
        }
        (false, Mode::Act) => None,
    }
}
