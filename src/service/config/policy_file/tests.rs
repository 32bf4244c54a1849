//! What policy files say, what is refused and where, and that a genesis survives being written.

use proptest::prelude::*;
use std::collections::BTreeMap;

use super::PolicyFile;
use crate::knowledge::{
    genesis::{Genesis, Parameters},
    observation::AttributeValue,
    plan::OnStale,
    policy::{
        Action, Capacity, Change, Combine, Condition, Controls, Indicator, Mode, Policy, Risk, Selector,
        Side, Statistic, TargetKind, Way,
    },
};
use crate::service::config::{Completion, IncompleteTarget, POLICY_EXAMPLE, Place, policy_text};
use crate::types::{Millis, PublicKey, Quantity, SecretKey, SourceId, TargetId};

const AIRFLOW: &str = include_str!("../../../../examples/policies/airflow.toml");

fn key() -> PublicKey {
    SecretKey::from_seed(&[9; 32]).public()
}

fn completion_for(file: &PolicyFile) -> Completion {
    let agents = file.targets().map(|target| (target.clone(), key())).collect();
    Completion { agents, owner: Some("owner-0".to_owned()) }
}

#[test]
fn the_demo_policy_is_what_it_says() {
    let file = PolicyFile::parse("airflow.toml", AIRFLOW).expect("it is valid");
    let genesis = file.genesis(&completion_for(&file)).expect("every target has an agent");
    assert_eq!(genesis.parameters, Parameters::for_window(Millis::from_secs(10)));
    let target = &genesis.targets[0];
    assert_eq!(target.id.as_str(), "airflow/extract_pool");
    assert_eq!(target.kind, TargetKind::Pool { initial: 3, min: 2, max: 12, max_step: 3 });
    assert_eq!((target.cooldown, target.plans_per_hour), (Millis::from_secs(120), 6));
    let [backlog, silent] = genesis.policies.as_slice() else { panic!("two policies") };
    assert_eq!(
        *backlog,
        Policy {
            name: "extract-backlog".to_owned(),
            indicator: Indicator {
                selector: Selector {
                    source: SourceId::new("airflow").ok(),
                    name: "airflow.pool.scheduled_slots".to_owned(),
                    attributes: BTreeMap::from([(
                        "pool_name".to_owned(),
                        AttributeValue::Text("extract_pool".to_owned())
                    )]),
                },
                statistic: Statistic::Last,
                combine: Combine::Sum,
            },
            condition: Condition::Threshold {
                side: Side::Above,
                enter: Quantity::from_i64(20),
                leave: Quantity::from_i64(5),
                hold: Millis::ZERO,
            },
            action: Some(Action {
                target: TargetId::new("airflow/extract_pool").expect("a valid name"),
                change: Change::AddSlots(3),
                cooldown: Millis::from_secs(300),
                expiry: Millis::from_secs(900),
                risk: Risk::Low,
                on_stale: OnStale::Hold,
                verify_within: Millis::from_secs(300),
                controls: Controls::ACTING,
            }),
        }
    );
    assert_eq!(silent.condition, Condition::Absence { after_milli_intervals: 1500 });
    assert_eq!((silent.indicator.statistic, &silent.action), (Statistic::Increase, &None));
}

#[test]
fn the_example_states_the_defaults() {
    let example = PolicyFile::parse("example", POLICY_EXAMPLE).expect("it is valid");
    let defaults = PolicyFile::parse("empty", "").expect("an empty file is valid");
    assert_eq!(example.parameters(), defaults.parameters());
    let changes: Vec<_> =
        example.policies().iter().map(|policy| policy.action.as_ref().map(|action| action.change)).collect();
    assert_eq!(changes, [Some(Change::AddSlots(3)), Some(Change::Pause), None, None]);
}

const CHECK: &str = "[[conservation]]
name = \"adds-up\"
source = \"engine\"
inflow = { name = \"in\", attributes = { queue = \"a\" } }
outflow = { name = \"out\" }
stock = { name = \"there\" }
tolerance = 1.5
over = \"1m\"
";

#[test]
fn a_conservation_check_is_a_policy_without_an_action_over_one_source() {
    let file = PolicyFile::parse("check.toml", CHECK).expect("it is valid");
    let part = |name: &str, attributes: &[(&str, &str)]| Selector {
        source: Some(SourceId::new("engine").expect("a valid name")),
        name: name.to_owned(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), AttributeValue::Text((*value).to_owned())))
            .collect(),
    };
    let expected = Policy {
        name: "adds-up".to_owned(),
        indicator: Indicator {
            selector: part("in", &[("queue", "a")]),
            statistic: Statistic::Increase,
            combine: Combine::Sum,
        },
        condition: Condition::Conservation {
            outflow: part("out", &[]),
            stock: part("there", &[]),
            tolerance: Quantity::from_nanos(1_500_000_000),
            over: Millis::from_secs(60),
        },
        action: None,
    };
    assert_eq!(file.policies(), [expected]);
    assert!(file.notes().is_empty());
    let rows = [
        ("source = \"engine\"\n", "", (1, 1), "missing field `source`"),
        ("\"there\"", "\"\"", (6, 18), "a metric's name has 1 to 255 bytes"),
        (
            "name = \"out\"",
            "name = \"out\", source = \"other\"",
            (5, 27),
            "unknown field `source`, expected `name` or `attributes`",
        ),
        ("1.5", "-1", (7, 13), "tolerance must not be below zero"),
        ("\"1m\"", "\"9s\"", (8, 8), "over must be 1 to 360 windows"),
        ("\"1m\"", "\"61m\"", (8, 8), "over must be 1 to 360 windows"),
        ("\"adds-up\"", "\"adds up\"", (2, 8), "a policy's name has 1 to 64 characters"),
    ];
    for (part, instead, place, message) in rows {
        let error = PolicyFile::parse("check.toml", &CHECK.replacen(part, instead, 1)).expect_err(message);
        assert!(error.to_string().contains(message), "{message}: {error}");
        let (line, column) = place;
        assert_eq!(error.place(), Some(Place { line, column }), "{message}");
    }
    let error = PolicyFile::parse("check.toml", &[CHECK, CHECK].concat()).expect_err("it stands twice");
    assert!(
        error.to_string().contains("adds-up is the name of a policy or another check already"),
        "{error}"
    );
}

#[test]
fn a_genesis_needs_an_owner_and_an_agent_for_every_target_and_never_replaces_one() {
    let file = PolicyFile::parse("airflow.toml", AIRFLOW).expect("it is valid");
    let target = TargetId::new("airflow/extract_pool").expect("a valid name");
    let whole = completion_for(&file);
    let nobody = Completion { agents: BTreeMap::new(), ..whole.clone() };
    assert_eq!(file.genesis(&nobody), Err(IncompleteTarget::Agent(target.clone())));
    assert_eq!(file.genesis(&Completion { owner: None, ..whole }), Err(IncompleteTarget::Owner(target)));
    assert_eq!(file.targets_without_agent().count(), 1);
    let genesis = file.genesis(&completion_for(&file)).expect("every target has an agent");
    let written = PolicyFile::parse("written", &policy_text(&genesis)).expect("it is valid");
    assert_eq!(written.targets_without_agent().count(), 0);
    let other = SecretKey::from_seed(&[1; 32]).public();
    let agents = file.targets().map(|target| (target.clone(), other)).collect();
    let others = Completion { agents, owner: Some("owner-1".to_owned()) };
    assert_eq!(written.genesis(&others), Ok(genesis));
}

/// A valid file, of which rows replace a part.
const GOOD: &str = r#"[cycle]
window = "10s"

[[target]]
id = "pool"
pool = { initial = 3, min = 2, max = 12, max_step = 3 }
cooldown = "2m"
plans_per_hour = 6

[[target]]
id = "switch"
switch = { initially = "running" }
cooldown = "2m"
plans_per_hour = 6

[[policy]]
name = "backlog"
series = { name = "waiting", attributes = { pool_name = "extract_pool" } }
statistic = "last"
when = { above = 20, until = 5 }
then = { target = "pool", add_slots = 3, cooldown = "5m", risk = "low" }

[[target]]
id = "tasks"
tasks = { most = 20, within = "10m" }
cooldown = "2m"
plans_per_hour = 6
"#;

/// Each row: a part of the file, what stands there instead, the place of the error, and words of its message.
#[test]
fn what_is_wrong_is_said_with_its_place() {
    let rows: &[(&str, &str, (usize, usize), &str)] = &[
        ("window = ", "windwo = ", (2, 1), "`windwo` is not known here; did you mean `window`?"),
        ("\"10s\"", "\"10\"", (2, 10), "\"10\" is not a span of time with its unit, such as"),
        ("\"10s\"", "10", (2, 10), "expected a span of time with its unit"),
        ("\"10s\"", "\"0s\"", (1, 1), "window must not be zero"),
        ("\"10s\"", "\"10s\"\nhead_slot = \"9s\"", (1, 1), "head_slot must be at least one window"),
        (
            "\"10s\"",
            "\"10s\"\nstale_after = \"29s\"",
            (1, 1),
            "head_slot must be at most a third of stale_after",
        ),
        ("\"10s\"", "\"10s\"\ngrace = \"11s\"", (1, 1), "grace must be at most one window"),
        ("[[target]]", "[[taget]]", (4, 3), "did you mean `target`?"),
        ("id = \"pool\"", "id = \"pool one\"", (5, 6), "\"pool one\" is not valid"),
        ("id = \"switch\"", "id = \"pool\"", (11, 6), "target pool stands here twice"),
        ("initial = 3", "initial = 1", (6, 8), "min <= initial <= max must hold, not 2, 1, 12"),
        ("max_step = 3", "max_step = 0", (6, 8), "max_step must be at least 1"),
        ("max_step = 3", "step = 3", (6, 42), "did you mean `max_step`?"),
        (
            "pool = { initial = 3, min = 2, max = 12, max_step = 3 }\n",
            "",
            (5, 6),
            "one of a `pool`, a `switch` and `tasks`",
        ),
        ("cooldown = \"2m\"", "cooldown = \"61m\"", (7, 12), "a cooldown is at most 1h"),
        ("plans_per_hour = 6", "plans_per_hour = 0", (8, 18), "plans_per_hour must be at least 1"),
        ("plans_per_hour = 6", "plans_per_hour = 6\nagent = \"ff\"", (9, 9), "64 lower-case hexadecimal"),
        ("\"running\"", "\"runing\"", (12, 24), "`runing` is not known here; did you mean `running`?"),
        ("name = \"backlog\"", "name = \"back log\"", (17, 8), "a policy's name has 1 to 64 characters"),
        ("\"waiting\"", "\"\"", (18, 19), "a metric's name has 1 to 255 bytes"),
        ("\"extract_pool\"", "1.5", (18, 57), "expected a string, an integer, true or false"),
        ("\"last\"", "\"lst\"", (19, 13), "`lst` is not known here; did you mean `last`?"),
        ("statistic = \"last\"\n", "", (16, 1), "missing field `statistic`"),
        ("above = 20, ", "", (20, 8), "one of `above`, `below`, `absent`"),
        ("above = 20, ", "above = 20, below = 1, ", (20, 8), "one of `above`, `below`, `absent`"),
        (", until = 5", "", (20, 8), "`until` is missing"),
        ("until = 5", "until = 20", (20, 30), "`until` lies on the healthy side"),
        ("above = 20, ", "abov = 20, ", (20, 10), "did you mean `above`?"),
        ("above = 20, until = 5", "absent = 0.5", (20, 19), "1 to 1000, with at most three decimal places"),
        ("above = 20, until = 5", "absent = 1.0005", (20, 19), "at most three decimal places"),
        ("above = 20, until = 5", "absent = 2, for = \"1s\"", (20, 28), "no `for`"),
        ("above = 20, until = 5", "absent = 2, until = 1", (20, 30), "no `until`"),
        ("target = \"pool\"", "target = \"poll\"", (21, 19), "there is no target poll; did you mean pool?"),
        ("target = \"pool\"", "target = \"switch\"", (21, 41), "switch is a switch and has no slots"),
        ("add_slots = 3", "pause = true", (21, 35), "pool is a pool and cannot be paused"),
        ("add_slots = 3", "pause = false", (21, 35), "leave it out instead of saying false"),
        ("add_slots = 3", "add_slots = 0", (21, 39), "adding no slots changes nothing"),
        ("add_slots = 3", "add_slots = -4", (21, 39), "by at most 3 slots"),
        ("add_slots = 3", "set_slots = 13", (21, 39), "pool may have 2 to 12 slots"),
        ("add_slots = 3, ", "", (21, 8), "an action is one of"),
        ("add_slots = 3", "add_slots = 3, set_slots = 5", (21, 8), "an action is one of"),
        ("\"low\"", "\"lo\"", (21, 66), "did you mean `low`?"),
        ("\"low\"", "\"low\", expiry = \"1s\"", (21, 82), "at least activation_limit (20s)"),
        ("\"low\"", "\"low\", expiry = \"25h\"", (21, 82), "at most 24h"),
        ("\"low\"", "\"low\", verify_within = \"0s\"", (21, 89), "verify_within must be more than nothing"),
        ("[cycle]", "[cycle", (1, 7), "unclosed table"),
    ];
    PolicyFile::parse("good.toml", GOOD).expect("the file is valid before it is broken");
    let mut wrong = Vec::new();
    for (part, instead, (line, column), words) in rows {
        assert!(GOOD.contains(part), "{part:?} is not in the file");
        let text = GOOD.replacen(part, instead, 1);
        let error = PolicyFile::parse("bad.toml", &text).expect_err(instead);
        let place = Some(Place { line: *line, column: *column });
        if error.place() != place || !error.message().contains(words) {
            wrong.push(format!("{instead:?}: {error}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn tasks_are_retried_and_nothing_else() {
    let good = GOOD.replace("target = \"pool\", add_slots = 3", "target = \"tasks\", retry = true");
    let file = PolicyFile::parse("good.toml", &good).expect("tasks can be retried");
    let action = file.policies()[0].action.as_ref().expect("it has one");
    assert_eq!(action.change, Change::Retry);
    let rows = [
        ("most = 20", "most = 101", "most is from 1 to 100"),
        ("\"10m\"", "\"0s\"", "within more than nothing"),
        ("\"tasks\", retry", "\"pool\", retry", "pool has no tasks to retry"),
        ("retry = true", "add_slots = 3", "tasks are tasks and have no slots"),
        ("retry = true", "pause = true", "tasks are tasks and cannot be paused or resumed"),
        ("\"low\"", "\"low\", on_stale = \"rollback\"", "a retry cannot be taken back"),
    ];
    for (part, instead, words) in rows {
        let error = PolicyFile::parse("bad.toml", &good.replace(part, instead)).expect_err(instead);
        assert!(error.place().is_some() && error.message().contains(words), "{error}");
    }
}

#[test]
fn a_pool_is_scaled_by_a_capacity_model_and_nothing_else() {
    let text = include_str!("../../../../examples/policies/scaling.toml");
    let file = PolicyFile::parse("scaling.toml", text).expect("the example is valid");
    let Condition::Capacity(capacity) = &file.policies()[0].condition else { panic!("it is a model") };
    assert_eq!((capacity.utilization_milli, capacity.drain), (1000, Millis::from_secs(120)));
    assert_eq!(file.policies()[0].action.as_ref().map(|action| action.change), Some(Change::Scale));
    let rows = [
        ("utilization = 1", "utilization = 1.5", "a share from 0.001 to 1"),
        ("utilization = 1", "utilization = 0.0005", "a share from 0.001 to 1"),
        ("drain = \"2m\"", "drain = \"0s\"", "`drain` is more than nothing"),
        ("keep = \"60s\"", "keep = \"61m\"", "at most 1h"),
        ("keep = \"60s\"", "", "missing field `keep`"),
        ("lead = ", "led = ", "`led` is not known here; did you mean `lead`?"),
        ("statistic = \"increase\"", "statistic = \"last\"", "the statistic must be increase"),
        ("scale = true", "add_slots = 3", "only scale can follow from a capacity model"),
        ("scale = true", "scale = false", "leave it out"),
        (
            "[policy.when.capacity]",
            "[policy.when]\nabove = 3\n[policy.when.capacity]",
            "a condition is one of",
        ),
        (
            "[policy.when.capacity]",
            "[policy.when]\nfor = \"3s\"\n[policy.when.capacity]",
            "no `until` and no `for`",
        ),
    ];
    for (part, instead, words) in rows {
        let error = PolicyFile::parse("bad.toml", &text.replace(part, instead)).expect_err(instead);
        assert!(error.place().is_some() && error.message().contains(words), "{instead}: {error}");
    }
    let other = GOOD.replace("add_slots = 3", "scale = true");
    let error = PolicyFile::parse("bad.toml", &other).expect_err("a threshold does not say how many");
    assert!(error.message().contains("scale needs a capacity model"), "{error}");
}

#[test]
fn what_lies_in_no_one_place_is_said_without_one() {
    let target = |index| {
        let name = format!("{index:0>128}");
        format!(
            "[[target]]\nid = \"{name}\"\nswitch = {{ initially = \"running\" }}\ncooldown = \"1s\"\nplans_per_hour = 1\n"
        )
    };
    let text: String = (0..256).map(target).collect();
    let error = PolicyFile::parse("many.toml", &text).expect_err("one head cannot hold so long names");
    assert_eq!(error.place(), None);
    assert!(error.message().contains("too long for one head"), "{error}");
}

#[test]
fn an_error_is_one_line_with_file_line_and_column() {
    let error = PolicyFile::parse("bad.toml", "[cycle]\nwindwo = \"1s\"\n").expect_err("a misspelt key");
    assert_eq!(error.to_string(), "bad.toml:2:1: `windwo` is not known here; did you mean `window`?");
}

fn any_span(most: u64) -> impl Strategy<Value = Millis> {
    (0..=most).prop_map(Millis::new)
}

/// Each row: what stands in `then` beside the rest, and the controls that follow.
#[test]
fn a_policy_is_in_shadow_unless_it_says_that_it_acts() {
    let acting = Controls::ACTING;
    let rows = [
        ("", Controls::default()),
        (", mode = \"shadow\"", Controls { mode: Mode::Shadow, ..acting }),
        (", mode = \"act\"", acting),
        (", mode = \"act\", max_step = 3, up = true", Controls { max_step: Some(3), ..acting }),
        (", mode = \"act\", up = false, down = true", Controls { up: Way::Paused, ..acting }),
        (", down = false", Controls { down: Way::Paused, ..Controls::default() }),
    ];
    for (written, expected) in rows {
        let text = GOOD.replace("risk = \"low\"", &format!("risk = \"low\"{written}"));
        let file = PolicyFile::parse("good.toml", &text).expect(written);
        let action = file.policies()[0].action.as_ref().expect("it has one");
        assert_eq!(action.controls, expected, "{written}");
    }
}

#[test]
fn a_policy_that_cannot_act_is_noted() {
    let rows = [
        ("", Some("in shadow")),
        (", mode = \"act\"", None),
        (", mode = \"act\", down = false", None),
        (", mode = \"act\", up = false", Some("never acts")),
        (", up = false, down = false", Some("never acts")),
    ];
    for (written, words) in rows {
        let text = GOOD.replace("risk = \"low\"", &format!("risk = \"low\"{written}"));
        let notes = PolicyFile::parse("good.toml", &text).expect(written).notes();
        let about: Vec<_> = notes.iter().filter(|note| note.starts_with("policy backlog")).collect();
        assert_eq!(about.len(), usize::from(words.is_some()), "{written}: {notes:?}");
        assert!(about.iter().all(|note| note.contains(words.unwrap_or_default())), "{written}: {notes:?}");
    }
}

#[test]
fn controls_that_do_not_fit_are_refused_where_they_stand() {
    let then = "then = { target = \"pool\", add_slots = 3, cooldown = \"5m\", risk = \"low\"";
    let switch = "then = { target = \"switch\", pause = true, cooldown = \"5m\", risk = \"low\"";
    let rows = [
        (then, ", mode = \"on\"", "shadow"),
        (then, ", max_step = 0", "max_step is from 1 to what the target allows (3)"),
        (then, ", max_step = 4", "max_step is from 1 to what the target allows (3)"),
        (then, ", max_step = 2", "add_slots = 3 is more than max_step allows"),
        (then, ", max_stap = 2", "did you mean `max_step`?"),
        (switch, ", max_step = 2", "`max_step` is of slots, and switch has none"),
        (switch, ", up = true", "`up` is of slots, and switch has none"),
        (switch, ", down = false", "`down` is of slots, and switch has none"),
    ];
    for (action, written, words) in rows {
        let text = GOOD.replace(then, &format!("{action}{written}"));
        let error = PolicyFile::parse("bad.toml", &text).expect_err(written);
        let line = error.place().map(|place| place.line);
        assert!(line == Some(21) && error.message().contains(words), "{written}: {error}");
    }
}

fn any_controls() -> impl Strategy<Value = Controls> {
    let way = || prop_oneof![Just(Way::Open), Just(Way::Paused)];
    (prop_oneof![Just(Mode::Act), Just(Mode::Shadow)], proptest::option::of(1u32..4), way(), way())
        .prop_map(|(mode, max_step, up, down)| Controls { mode, max_step, up, down })
}

/// Those of the controls that may stand beside this change.
fn fitting(controls: Controls, change: Change) -> Controls {
    match change {
        Change::AddSlots(slots) => {
            let max_step = controls.max_step.map(|most| most.max(slots.unsigned_abs()));
            Controls { max_step, ..controls }
        }
        Change::SetSlots(_) | Change::Scale => controls,
        Change::Pause | Change::Resume | Change::Retry => {
            Controls { mode: controls.mode, ..Controls::ACTING }
        }
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let change = prop_oneof![
        prop_oneof![-3i32..0, 1i32..4].prop_map(Change::AddSlots),
        (2u32..13).prop_map(Change::SetSlots),
        Just(Change::Pause),
        Just(Change::Resume),
        Just(Change::Retry),
    ];
    let risk = prop_oneof![Just(Risk::Low), Just(Risk::Medium), Just(Risk::High)];
    let on_stale = prop_oneof![Just(OnStale::Hold), Just(OnStale::Rollback)];
    (change, any_span(3_600_000), 20_000u64..86_400_000, risk, on_stale, 1u64..1 << 40, any_controls())
        .prop_map(|(change, cooldown, expiry, risk, on_stale, within, controls)| Action {
            target: TargetId::new(match change {
                Change::AddSlots(_) | Change::SetSlots(_) | Change::Scale => "pool",
                Change::Pause | Change::Resume => "switch",
                Change::Retry => "tasks",
            })
            .expect("a valid name"),
            change,
            cooldown,
            expiry: Millis::new(expiry),
            risk,
            on_stale: if change == Change::Retry { OnStale::Hold } else { on_stale },
            verify_within: Millis::new(within),
            controls: fitting(controls, change),
        })
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let bound = -1_000_000_000_000_000_000i128..1_000_000_000_000_000_000;
    prop_oneof![
        (any::<bool>(), bound, 1i128..1_000_000_000_000, any_span(1 << 40)).prop_map(
            |(above, enter, apart, hold)| Condition::Threshold {
                side: if above { Side::Above } else { Side::Below },
                enter: Quantity::from_nanos(enter),
                leave: Quantity::from_nanos(if above { enter - apart } else { enter + apart }),
                hold,
            }
        ),
        (1000u32..=1_000_000).prop_map(|after_milli_intervals| Condition::Absence { after_milli_intervals }),
        any_capacity(),
    ]
}

fn any_capacity() -> impl Strategy<Value = Condition> {
    let spans = (1u64..=3_600_000, any_span(3_600_000), any_span(3_600_000), any_span(3_600_000));
    let names = ("\\PC{1,40}", "\\PC{1,40}", "\\PC{1,40}");
    (names, 1u32..=1000, spans).prop_map(|(names, utilization_milli, (drain, lead, smooth, keep))| {
        let indicator = |name, statistic| Indicator {
            selector: Selector { source: None, name, attributes: BTreeMap::new() },
            statistic,
            combine: Combine::Sum,
        };
        Condition::Capacity(Box::new(Capacity {
            work: indicator(names.0, Statistic::Increase),
            completions: indicator(names.1, Statistic::Increase),
            backlog: indicator(names.2, Statistic::Last),
            utilization_milli,
            drain: Millis::new(drain),
            lead,
            smooth,
            keep,
        }))
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let value = prop_oneof![
        any::<String>().prop_map(AttributeValue::Text),
        any::<i64>().prop_map(AttributeValue::Integer),
        any::<bool>().prop_map(AttributeValue::Bool),
    ];
    let statistic = prop_oneof![
        Just(Statistic::Last),
        Just(Statistic::Min),
        Just(Statistic::Max),
        Just(Statistic::Mean),
        Just(Statistic::Increase)
    ];
    let combine = prop_oneof![Just(Combine::Sum), Just(Combine::Min), Just(Combine::Max)];
    let source =
        proptest::option::of("[a-z./:]{1,9}".prop_map(|name| SourceId::new(name).expect("a valid name")));
    let attributes = proptest::collection::btree_map(any::<String>(), value, 0..4);
    let indicator = (source, "\\PC{1,40}", attributes, statistic, combine).prop_map(
        |(source, name, attributes, statistic, combine)| Indicator {
            selector: Selector { source, name, attributes },
            statistic,
            combine,
        },
    );
    (indicator, any_condition(), proptest::option::of(any_action())).prop_map(
        |(mut indicator, condition, mut action)| {
            if let Condition::Capacity(_) = condition {
                indicator.statistic = Statistic::Increase;
                if let Some(action) = &mut action {
                    action.change = Change::Scale;
                    action.target = TargetId::new("pool").expect("a valid name");
                }
            }
            Policy { name: String::new(), indicator, condition, action }
        },
    )
}

fn any_check() -> impl Strategy<Value = Policy> {
    let source = "[a-z./:]{1,9}".prop_map(|name| SourceId::new(name).expect("a valid name"));
    let attributes = || {
        proptest::collection::btree_map(any::<String>(), any::<i64>().prop_map(AttributeValue::Integer), 0..3)
    };
    let terms = [(); 3].map(|()| ("\\PC{1,40}", attributes()));
    (source, terms, 0_i128..1 << 90, 10_000_u64..=3_600_000).prop_map(|(source, terms, tolerance, over)| {
        let [selector, outflow, stock] =
            terms.map(|(name, attributes)| Selector { source: Some(source.clone()), name, attributes });
        let (tolerance, over) = (Quantity::from_nanos(tolerance), Millis::new(over));
        Policy {
            name: String::new(),
            indicator: Indicator { selector, statistic: Statistic::Increase, combine: Combine::Sum },
            condition: Condition::Conservation { outflow, stock, tolerance, over },
            action: None,
        }
    })
}

proptest! {
    #[test]
    fn a_genesis_is_read_as_it_was_written(
        policies in proptest::collection::vec(any_policy(), 0..5),
        checks in proptest::collection::vec(any_check(), 0..3),
    ) {
        let file = PolicyFile::parse("good.toml", GOOD).expect("the file is valid");
        let mut genesis: Genesis = file.genesis(&completion_for(&file)).expect("every target has an agent");
        genesis.policies = [policies, checks].concat();
        for (index, policy) in genesis.policies.iter_mut().enumerate() {
            policy.name = format!("p{index}");
        }
        let text = policy_text(&genesis);
        let read = PolicyFile::parse("written.toml", &text);
        let read = read.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(read.genesis(&Completion::default()).expect("the keys stand in the text"), genesis);
    }

    #[test]
    fn no_text_makes_the_reader_panic(
        at in 0usize..GOOD.len(), cut in 0usize..12, instead in "[\\PC\n\"{}=\\[\\]]{0,8}",
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        let end = (at + cut).min(text.len());
        text.splice(at..end, instead.chars());
        let text: String = text.into_iter().collect();
        if let Err(error) = PolicyFile::parse("broken.toml", &text) {
            prop_assert!(!error.message().is_empty());
        }
    }
}
