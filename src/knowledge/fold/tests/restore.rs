//! States that are written down and read back.

use super::{
    operators::{agent_number, bind, resume, revoke, stop, unbind},
    *,
};
use crate::{
    knowledge::fold::RestoreError,
    types::{Evidence, SignedStatement},
};

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Step {
    /// A replica reports a window some way above the newest closed one.
    Report {
        replica: usize,
        ahead: u64,
        queue: Option<i64>,
        partial: bool,
    },
    Tick {
        replica: usize,
        seconds: u64,
    },
    Plan {
        ago: u64,
    },
    Receipt {
        counter: u64,
    },
    Operator {
        what: u8,
        operator: usize,
        counter: u64,
    },
    Evidence {
        offender: usize,
        view: u64,
        of_plan: bool,
    },
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let report = (0..4_usize, 0..4_u64, proptest::option::weighted(0.8, 0..200_i64), any::<bool>())
        .prop_map(|(replica, ahead, queue, partial)| Step::Report { replica, ahead, queue, partial });
    let step = prop_oneof![
        6 => report,
        2 => (0..4_usize, 0..90_u64).prop_map(|(replica, seconds)| Step::Tick { replica, seconds }),
        2 => (0..3_u64).prop_map(|ago| Step::Plan { ago }),
        1 => (1..20_u64).prop_map(|counter| Step::Receipt { counter }),
        2 => (0..5_u8, 0..3_usize, 1..60_u64)
            .prop_map(|(what, operator, counter)| Step::Operator { what, operator, counter }),
        1 => (0..4_usize, 1..8_u64, any::<bool>())
            .prop_map(|(offender, view, of_plan)| Step::Evidence { offender, view, of_plan }),
    ];
    proptest::collection::vec(step, 0..most)
}

impl Replicas {
    /// Takes a step; which command it is follows from the state alone.
    fn step(&mut self, step: &Step) -> Applied {
        let now = self.state.now().map_or(BEGIN, |now| now.as_millis() / 1000);
        match step {
            Step::Report { replica, ahead, queue, partial } => {
                let seen = queue.map_or_else(WindowSummary::default, |value| summary(&[("queue", value)]));
                let newest = self.state.newest_closed().map_or(99, WindowIndex::index);
                let window = newest + 1 + ahead;
                let header = ReportHeader {
                    partial: *partial && *replica == 3,
                    ..header(*replica, window, (window + 1) * 10 + 2, &seen)
                };
                self.apply(self.signed_report(header, &seen))
            }
            Step::Tick { replica, seconds } => self.tick(*replica, now + seconds),
            Step::Plan { ago } => {
                let newest = self.newest();
                let seq = self.state.cycle().number().saturating_sub(*ago);
                let next = plan(&self.state, seq, newest.map_or(Digest::ZERO, |newest| digest(&newest)), now);
                self.log(&next)
            }
            Step::Receipt { counter } => match self.newest() {
                Some(newest) => self.answer(&receipt(&newest, *counter)),
                None => Applied::default(),
            },
            Step::Operator { what, operator, counter } => {
                let request = match what {
                    0 => stop(&["pool"]),
                    1 => revoke(&["dag", "pool"]),
                    2 => resume(&["pool"]),
                    3 => bind("pool", &agent_number(*counter)),
                    _ => unbind("pool", &agent_number(*counter)),
                };
                self.ask(*operator, *counter, request)
            }
            Step::Evidence { offender, view, of_plan } => {
                let evidence = if *of_plan {
                    self.double_endorsement(*offender, 0, *view, "pool")
                } else {
                    self.double_vote(*offender, *view)
                };
                self.apply(Command::Evidence(evidence))
            }
        }
    }

    fn newest(&self) -> Option<Plan> {
        self.state.newest_plans().next().map(|newest| newest.document().clone())
    }

    /// The same keys behind a state that was read back.
    fn restored(&self) -> Self {
        let state = restore(&written(&self.state)).expect("what was written is read");
        Self { keys: self.keys.clone(), state }
    }
}

fn written(state: &State) -> Vec<u8> {
    borsh::to_vec(state).expect("in memory")
}

fn restore(mut bytes: &[u8]) -> Result<State, RestoreError> {
    let Replicas { state, .. } = Replicas::new(4);
    let state = State::restore(&mut bytes, genesis(), state.committee().clone(), operators())?;
    assert!(bytes.is_empty(), "it ends where the state ends");
    Ok(state)
}

/// A state with something in each of its parts.
fn lived() -> Replicas {
    let mut replicas = Replicas::begun(4);
    for window in 100..104 {
        replicas.full_window(window, &summary(&[("queue", 200), ("heartbeat", 1)]));
    }
    let logged = plan(&replicas.state, 4, Digest::ZERO, 1042);
    replicas.log(&logged);
    replicas.answer(&receipt(&logged, 3));
    replicas.ask(0, 5, stop(&["dag"]));
    replicas.apply(Command::Evidence(replicas.double_vote(3, 5)));
    replicas.apply(Command::Evidence(replicas.double_endorsement(1, 0, 4, "pool")));
    replicas.report(0, 104, 1052, &summary(&[("queue", 7)]));
    replicas.report(1, 105, 1062, &summary(&[("queue", 7)]));
    replicas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_restored_state_does_with_every_later_command_what_the_first_one_does(
        before in steps(40), after in steps(40),
    ) {
        let mut first = Replicas::begun(4);
        for step in &before {
            first.step(step);
        }
        let mut second = first.restored();
        prop_assert_eq!(first.state.root(), second.state.root());
        for step in &after {
            prop_assert_eq!(first.step(step), second.step(step), "{:?}", step);
            prop_assert_eq!(first.state.root(), second.state.root());
            for replica in 0..4 {
                let clock = first.state.now().unwrap_or_default().plus(WINDOW);
                let wants = |replicas: &Replicas| replicas.state.wants_tick(place(replica), clock);
                prop_assert_eq!(wants(&first), wants(&second));
            }
        }
        prop_assert_eq!(written(&first.state), written(&second.state));
    }

    #[test]
    fn bytes_that_were_changed_are_refused_or_are_another_state_of_the_same_form(
        place in any::<proptest::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = written(&lived().state);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Ok(state) = restore(&bytes) {
            prop_assert_eq!(written(&state), bytes);
        }
    }
}

#[test]
fn a_state_with_something_in_each_part_is_read_back_as_it_was() {
    let replicas = lived();
    let again = replicas.restored();
    assert_eq!(written(&again.state), written(&replicas.state));
    assert_eq!(again.newest(), replicas.newest());
    assert!(again.newest().is_some(), "what agents are served is there");
    assert_eq!(again.state.newest_closed(), Some(WindowIndex::new(103)));
    assert_eq!(again.state.evidence(), replicas.state.evidence());
    assert_eq!(again.state.evidence().iter().count(), 2);
}

/// Whoever changes the form of a state raises `VERSION` in `encoding.rs` and pins here what it is then: a replica of another form
/// must refuse it, not misread it. What the state was founded on stands by digest before it and is no matter of form.
#[test]
fn the_form_of_a_state_has_its_own_version() {
    const FOUNDING_BYTES: usize = 4 + 32 + 8 + 32 + 32;
    let mut replicas = lived();
    replicas.ask(1, 6, bind("pool", &agent_number(1)));
    let statement = |queue| {
        let seen = summary(&[("queue", queue)]);
        let signed = replicas.signed_report(header(3, 105, 1062, &seen), &seen);
        let Command::Report { report, .. } = signed else { panic!("it is a report") };
        let bytes = report.header.statement(&replicas.state.committee().domain(0));
        SignedStatement { bytes, signature: report.signature }
    };
    let evidence = Evidence::contradiction(place(3), statement(7), statement(8));
    replicas.apply(Command::Evidence(evidence));
    assert!(replicas.state.evidence().iter().count() > 0);
    let bytes = written(&replicas.state);
    let version = u32::from_le_bytes(bytes[..4].try_into().expect("it begins with its version"));
    let form = (version, Digest::of(&bytes[FOUNDING_BYTES..]).to_string());
    assert_eq!(
        form,
        (2, "c6757dc524e567b5189b1111bd4fef42446c4e43514bbf4c6cd2c6fba7ca22e8".to_owned()),
        "raise VERSION, unless only the sample changed, then pin this"
    );
}

#[test]
fn a_state_that_was_cut_short_is_refused() {
    let bytes = written(&lived().state);
    for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        let refused = restore(&bytes[..end]);
        assert!(matches!(refused, Err(RestoreError::Malformed(_))), "{end}: {refused:?}");
    }
}

#[test]
fn a_state_of_another_genesis_or_committee_is_refused() {
    let Replicas { state, .. } = lived();
    let other_genesis = {
        let mut genesis = genesis();
        genesis.parameters.series_limit += 1;
        State::restore(&mut &*written(&state), genesis, state.committee().clone(), operators())
    };
    let other_committee = {
        let Replicas { state: other, .. } = Replicas::new(5);
        State::restore(&mut &*written(&state), genesis(), other.committee().clone(), operators())
    };
    for refused in [other_genesis, other_committee] {
        assert!(matches!(refused, Err(RestoreError::Foreign)), "{refused:?}");
    }
}
