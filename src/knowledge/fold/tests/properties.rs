//! Properties of the fold over generated logs.

use super::{
    operators::{agent_number, bind, resume, revoke, stop, unbind},
    *,
};
use crate::knowledge::fold::Permit;

/// A report in a generated log.
#[derive(Clone, Debug)]
struct Reported {
    replica: usize,
    window: u64,
    queue: Option<i64>,
    partial: bool,
}

impl Reported {
    fn command(&self, replicas: &Replicas) -> Command {
        let seen = self.queue.map_or_else(WindowSummary::default, |value| summary(&[("queue", value)]));
        let seconds = (self.window + 1) * 10 + 2;
        let header =
            ReportHeader { partial: self.partial, ..header(self.replica, self.window, seconds, &seen) };
        replicas.signed_report(header, &seen)
    }
}

/// Every replica's report on each of some windows from 100 on, by window.
fn reports(n: usize, windows: usize) -> impl Strategy<Value = Vec<Vec<Reported>>> {
    let one = (proptest::option::weighted(0.8, -20_i64..20), proptest::bool::weighted(0.1));
    proptest::collection::vec(proptest::collection::vec(one, n), windows).prop_map(|windows| {
        let window = |(offset, row): (usize, Vec<(Option<i64>, bool)>)| {
            let one = |(replica, (queue, partial))| Reported {
                replica,
                window: 100 + offset as u64,
                queue,
                partial,
            };
            row.into_iter().enumerate().map(one).collect()
        };
        windows.into_iter().enumerate().map(window).collect()
    })
}

fn windows_closed_by(replicas: &mut Replicas, log: &[Reported]) -> Vec<ClosedWindow> {
    let mut closed = Vec::new();
    for reported in log {
        let applied = replicas.apply(reported.command(replicas));
        closed.extend(applied.closed().cloned());
    }
    closed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_a_windows_reports_changes_no_byte_of_the_closed_window(
        (n, log, shuffled) in prop_oneof![Just(4_u8), Just(5), Just(7)]
            .prop_flat_map(|n| (Just(n), reports(usize::from(n), 3)))
            .prop_flat_map(|(n, log)| {
                let shuffled: Vec<_> = log.iter().map(|window| Just(window.clone()).prop_shuffle()).collect();
                (Just(n), Just(log), shuffled)
            })
    ) {
        let (mut first, mut second) = (Replicas::begun(n), Replicas::begun(n));
        let expected = windows_closed_by(&mut first, &log.concat());
        prop_assert_eq!(expected.len(), 3);
        let got = windows_closed_by(&mut second, &shuffled.concat());
        prop_assert_eq!(borsh::to_vec(&got).ok(), borsh::to_vec(&expected).ok());
        prop_assert_eq!(first.state.root(), second.state.root());
    }

    #[test]
    fn a_closed_windows_series_follow_from_its_reporters_alone(
        log in reports(4, 4).prop_flat_map(|log| Just(log.concat()).prop_shuffle())
    ) {
        let mut replicas = Replicas::begun(4);
        let size = replicas.state.committee().size();
        for closed in windows_closed_by(&mut replicas, &log) {
            let counted: Vec<WindowSummary> = log
                .iter()
                .filter(|reported| reported.window == closed.window.index() && !reported.partial)
                .filter(|reported| closed.reporters.iter().any(|(who, _)| *who == place(reported.replica)))
                .map(|reported| reported.queue.map_or_else(WindowSummary::default, |value| summary(&[("queue", value)])))
                .collect();
            let weighted = counted.iter().map(|summary| Weighted { summary, reports: 1 }).collect();
            prop_assert_eq!(CountedReports::new(size, weighted).all_series(), closed.series);
        }
    }

    #[test]
    fn equal_logs_give_equal_roots_and_windows_close_in_order(
        log in reports(5, 6).prop_flat_map(|log| Just(log.concat()).prop_shuffle()),
        kept in 0_usize..30,
    ) {
        let (mut first, mut second) = (Replicas::begun(5), Replicas::begun(5));
        let log = &log[..kept];
        let closed = windows_closed_by(&mut first, log);
        prop_assert_eq!(&closed, &windows_closed_by(&mut second, log));
        prop_assert_eq!(first.state.root(), second.state.root());
        prop_assert!(closed.is_sorted_by(|a, b| a.window < b.window && a.cycle < b.cycle));
    }

    #[test]
    fn equal_logs_with_operators_requests_give_equal_roots_and_a_plan_is_logged_only_where_nothing_is_stopped(
        log in proptest::collection::vec((0..8_u8, 0..3_usize, 1..60_u64), 1..40),
    ) {
        let (mut first, mut second) = (Replicas::begun(4), Replicas::begun(4));
        let mut newest = Digest::ZERO;
        for (what, operator, counter) in log {
            let stopped = first.state.operations().target(1).is_some_and(Permit::is_stopped);
            let lifted = first.state.operations().target(1).map_or(Cycle::ZERO, Permit::lifted);
            let next = plan(&first.state, first.state.cycle().number(), newest, 1000);
            let applied: Vec<Applied> = [&mut first, &mut second].into_iter().map(|replicas| match what {
                0 => replicas.ask(operator, counter, stop(&["pool"])),
                1 => replicas.ask(operator, counter, revoke(&["dag", "pool"])),
                2 => replicas.ask(operator, counter, resume(&["pool"])),
                3 => replicas.ask(operator, counter, bind("pool", &agent_number(counter))),
                4 => replicas.ask(operator, counter, unbind("pool", &agent_number(counter))),
                5 => replicas.log(&next),
                6 => {
                    let envelope = signed_receipt(&receipt(&next, counter), &agent_number(counter));
                    replicas.apply(Command::Receipt { envelope })
                }
                _ => {
                    let window = 100 + replicas.state.cycle().number();
                    replicas.full_window(window, &summary(&[("queue", 1)]));
                    Applied::default()
                }
            }).collect();
            prop_assert_eq!(&applied[0], &applied[1]);
            prop_assert_eq!(first.state.root(), second.state.root());
            if applied[0].changes.iter().any(|change| matches!(change, Change::PlanLogged(_))) {
                prop_assert!(!stopped && next.seq > lifted);
                newest = digest(&next);
            }
            for head in heads(&applied[0]) {
                let pool = first.state.operations().target(1).expect("it is in the genesis");
                prop_assert_eq!(head.targets[1].mode, pool.mode());
                prop_assert!(!pool.is_stopped() || pool.mode() != Mode::Act);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass(
        head in proptest::collection::vec(any::<u8>(), 0..200),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut replicas = Replicas::begun(1);
        let root = replicas.state.root();
        let applied = replicas.state.apply(&head, &body);
        prop_assert_eq!(applied.changes.len(), 1);
        prop_assert_eq!(replicas.state.root(), root);
    }

    #[test]
    fn a_flipped_bit_in_a_command_never_panics_and_closes_nothing(
        place in any::<proptest::sample::Index>(), bit in 0..8_u32, which in 0..3_usize,
    ) {
        let mut replicas = Replicas::begun(1);
        let plan = plan(&replicas.state, 1, Digest::ZERO, BEGIN);
        let seen = summary(&[("queue", 3)]);
        let command = match which {
            0 => replicas.report_command(0, 100, 1012, &seen),
            1 => replicas.tick_command(0, at(1060)),
            _ => Command::Certified { envelope: replicas.certify(&plan, 1) },
        };
        let mut encoded = command.encode();
        let place = place.index(encoded.head.len() + encoded.body.len());
        let byte = match place.checked_sub(encoded.head.len()) {
            None => &mut encoded.head[place],
            Some(place) => &mut encoded.body[place],
        };
        *byte ^= 1 << bit;
        let applied = replicas.state.apply(&encoded.head, &encoded.body);
        prop_assert!(applied.newest_closed().is_none());
        prop_assert!(!applied.changes.iter().any(|change| matches!(change, Change::PlanLogged(_))));
    }
}
