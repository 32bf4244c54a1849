//! A policy file as it is written: which keys there are, and of which type each is. What they mean together is
//! not checked here. Invariant: a key that does not stand here is refused.

use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

use crate::knowledge::{
    plan::OnStale,
    policy::{Combine, Mode, Risk, Statistic},
};
use crate::service::config::values::{Attribute, Decimal, SpanText};
use crate::types::{Digest, SourceId, TargetId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileText {
    pub(super) cycle: Option<Spanned<CycleText>>,
    #[serde(default)]
    pub(super) target: Vec<Spanned<TargetText>>,
    #[serde(default)]
    pub(super) policy: Vec<Spanned<PolicyText>>,
    #[serde(default)]
    pub(super) conservation: Vec<Spanned<ConservationText>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CycleText {
    pub(super) window: Option<SpanText>,
    pub(super) grace: Option<SpanText>,
    pub(super) settle: Option<SpanText>,
    pub(super) deadline: Option<SpanText>,
    pub(super) activation_limit: Option<SpanText>,
    pub(super) head_slot: Option<SpanText>,
    pub(super) stale_after: Option<SpanText>,
    pub(super) longest_hold: Option<SpanText>,
    pub(super) series_limit: Option<u32>,
    pub(super) checkpoint_interval: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetText {
    pub(super) id: Spanned<TargetId>,
    pub(super) pool: Option<Spanned<PoolText>>,
    pub(super) switch: Option<SwitchText>,
    pub(super) tasks: Option<Spanned<TasksText>>,
    pub(super) cooldown: Spanned<SpanText>,
    pub(super) plans_per_hour: Spanned<u32>,
    pub(super) owner: Option<Spanned<String>>,
    pub(super) agent: Option<Spanned<Digest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolText {
    pub(super) initial: u32,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) max_step: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchText {
    pub(super) initially: SwitchState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TasksText {
    pub(super) most: u32,
    pub(super) within: SpanText,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SwitchState {
    Running,
    Paused,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyText {
    pub(super) name: Spanned<String>,
    pub(super) series: SeriesText,
    pub(super) statistic: StatisticText,
    #[serde(default)]
    pub(super) combine: CombineText,
    pub(super) when: Spanned<WhenText>,
    pub(super) then: Option<Spanned<ThenText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConservationText {
    pub(super) name: Spanned<String>,
    pub(super) source: SourceId,
    pub(super) inflow: TermText,
    pub(super) outflow: TermText,
    pub(super) stock: TermText,
    pub(super) tolerance: Spanned<Decimal>,
    pub(super) over: Spanned<SpanText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermText {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesText {
    pub(super) name: Spanned<String>,
    pub(super) source: Option<SourceId>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Attribute>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StatisticText {
    Last,
    Min,
    Max,
    Mean,
    Increase,
    P50,
    P90,
    P99,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CombineText {
    #[default]
    Sum,
    Min,
    Max,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhenText {
    pub(super) above: Option<Decimal>,
    pub(super) below: Option<Decimal>,
    pub(super) until: Option<Spanned<Decimal>>,
    #[serde(rename = "for")]
    pub(super) hold: Option<Spanned<SpanText>>,
    pub(super) absent: Option<Spanned<Decimal>>,
    pub(super) capacity: Option<Spanned<CapacityText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapacityText {
    pub(super) work: SeriesText,
    pub(super) completions: SeriesText,
    pub(super) backlog: SeriesText,
    pub(super) utilization: Spanned<Decimal>,
    pub(super) drain: Spanned<SpanText>,
    pub(super) lead: Spanned<SpanText>,
    pub(super) smooth: Option<Spanned<SpanText>>,
    pub(super) keep: Spanned<SpanText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThenText {
    pub(super) target: Spanned<TargetId>,
    pub(super) add_slots: Option<Spanned<i32>>,
    pub(super) set_slots: Option<Spanned<u32>>,
    pub(super) pause: Option<Spanned<bool>>,
    pub(super) resume: Option<Spanned<bool>>,
    pub(super) retry: Option<Spanned<bool>>,
    pub(super) scale: Option<Spanned<bool>>,
    pub(super) cooldown: Spanned<SpanText>,
    pub(super) expiry: Option<Spanned<SpanText>>,
    pub(super) risk: RiskText,
    #[serde(default)]
    pub(super) on_stale: OnStaleText,
    pub(super) verify_within: Option<Spanned<SpanText>>,
    #[serde(default)]
    pub(super) mode: ModeText,
    pub(super) max_step: Option<Spanned<u32>>,
    pub(super) up: Option<Spanned<bool>>,
    pub(super) down: Option<Spanned<bool>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeText {
    #[default]
    Shadow,
    Act,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RiskText {
    Low,
    Medium,
    High,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnStaleText {
    #[default]
    Hold,
    Rollback,
}

impl From<StatisticText> for Statistic {
    fn from(text: StatisticText) -> Self {
        match text {
            StatisticText::Last => Self::Last,
            StatisticText::Min => Self::Min,
            StatisticText::Max => Self::Max,
            StatisticText::Mean => Self::Mean,
            StatisticText::Increase => Self::Increase,
            StatisticText::P50 => Self::P50,
            StatisticText::P90 => Self::P90,
            StatisticText::P99 => Self::P99,
        }
    }
}

impl From<CombineText> for Combine {
    fn from(text: CombineText) -> Self {
        match text {
            CombineText::Sum => Self::Sum,
            CombineText::Min => Self::Min,
            CombineText::Max => Self::Max,
        }
    }
}

impl From<ModeText> for Mode {
    fn from(text: ModeText) -> Self {
        match text {
            ModeText::Shadow => Self::Shadow,
            ModeText::Act => Self::Act,
        }
    }
}

impl From<RiskText> for Risk {
    fn from(text: RiskText) -> Self {
        match text {
            RiskText::Low => Self::Low,
            RiskText::Medium => Self::Medium,
            RiskText::High => Self::High,
        }
    }
}

impl From<OnStaleText> for OnStale {
    fn from(text: OnStaleText) -> Self {
        match text {
            OnStaleText::Hold => Self::Hold,
            OnStaleText::Rollback => Self::Rollback,
        }
    }
}
