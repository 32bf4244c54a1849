//! Recovery, case by case: after which faults the first block is committed within how many views and how much time.
//!
//! The seeds draw faults at random; these cases are made to hurt. Invariant: a case's bounds follow from the committee's
//! size alone, see [`Bounds`].

use quorate::types::{CommitteeSize, Millis, ReplicaIndex};
use std::fmt;

use crate::{
    adversary::{Kind, Side},
    disk::Crash,
    net::Weather,
    node::Clock,
    report::Outcome,
    run,
    scenario::{Damage, Fault, Scenario, Submission},
};

/// A view at the cap of its timer, with a slow clock and its messages.
const LONGEST_VIEW_MS: u64 = 8_500;

/// What views of live leaders take, all of them together.
const LIVE_VIEWS_MS: u64 = 2_000;

/// How soon the first block after the healing must be committed by somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Views, counted from the newest that any replica was in.
    pub views: u64,
    /// Milliseconds.
    pub ms: u64,
}

impl Bounds {
    /// Of 2f + 1 consecutive views two consecutive ones have live leaders, and the certificate of the second commits
    /// the block of the first; one more view because it begins in the middle of one, and one because whoever commits
    /// has entered the next. f of them wait for a dead leader, and the one that had begun may wait as long; the others go
    /// at the pace of messages.
    ///
    /// # Panics
    /// When no committee has that many replicas.
    #[must_use]
    pub fn of(replicas: usize) -> Self {
        let dead = CommitteeSize::new(replicas).expect("the cases have possible sizes").faults() as u64;
        Self { views: 2 * dead + 3, ms: (dead + 1) * LONGEST_VIEW_MS + LIVE_VIEWS_MS }
    }
}

/// Scenarios of one kind.
#[derive(Debug)]
pub struct Case {
    /// What they have in common.
    pub name: &'static str,
    /// n.
    pub replicas: usize,
    /// One for each variant.
    pub scenarios: Vec<Scenario>,
}

/// The worst of a case's scenarios.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What the scenarios have in common.
    pub name: &'static str,
    /// n.
    pub replicas: usize,
    /// How many there were.
    pub scenarios: usize,
    /// The most that one took.
    pub worst: Bounds,
    /// The most that one may take.
    pub bounds: Bounds,
    /// What went wrong, if anything did.
    pub broken: Option<String>,
}

impl Case {
    /// Runs all scenarios.
    #[must_use]
    pub fn run(self) -> Recovered {
        let Self { name, replicas, scenarios } = self;
        let bounds = Bounds::of(replicas);
        let mut recovered = Recovered {
            name,
            replicas,
            scenarios: scenarios.len(),
            worst: Bounds { views: 0, ms: 0 },
            bounds,
            broken: None,
        };
        for (number, scenario) in scenarios.into_iter().enumerate() {
            recovered.take(number, &run(scenario));
        }
        recovered
    }
}

impl Recovered {
    fn take(&mut self, number: usize, outcome: &Outcome) {
        let broken = match (&outcome.violation, outcome.recovered) {
            (Some(violation), _) => Some(violation.to_string()),
            (None, None) => Some("nothing was committed once the faults were over".to_owned()),
            (None, Some(took)) => {
                self.worst.views = self.worst.views.max(took.views);
                self.worst.ms = self.worst.ms.max(took.ms);
                let holds = took.views <= self.bounds.views && took.ms <= self.bounds.ms;
                (!holds).then(|| format!("{took:?} is more than {:?}", self.bounds))
            }
        };
        let broken =
            broken.map(|what| format!("{}, n = {}, variant {number}: {what}", self.name, self.replicas));
        self.broken = self.broken.take().or(broken);
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, replicas, scenarios, worst, bounds, broken } = self;
        let tenths = |ms: u64| format!("{}.{}", ms / 1000, ms % 1000 / 100);
        write!(
            f,
            "| {name} | {replicas} | {scenarios} | {} of {} | {} s of {} s |",
            worst.views,
            bounds.views,
            tenths(worst.ms),
            tenths(bounds.ms)
        )?;
        broken.iter().try_for_each(|broken| write!(f, " {broken}"))
    }
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for replicas in [4, 7, 10] {
        cases.push(dead_leaders(replicas));
    }
    cases.push(halves());
    cases.push(changing_halves());
    for replicas in [4, 7] {
        cases.push(hidden_locks(replicas));
        cases.push(all_lose_power(replicas));
        cases.push(one_slow(replicas));
    }
    cases.push(Case {
        name: "each timed out in another view, then all lost power, one for good",
        replicas: 4,
        scenarios: vec![each_in_another_view()],
    });
    cases
}

const fn replica(place: usize) -> ReplicaIndex {
    #[expect(clippy::cast_possible_truncation, reason = "the cases have few replicas")]
    ReplicaIndex::new(place as u16)
}

/// A quiet day: nothing goes wrong, clocks are right, one command at each replica shortly before the healing.
fn quiet(replicas: usize, heal_ms: u64) -> Scenario {
    let submission = |place| Submission { at_ms: heal_ms - 1, at: replica(place), body: Vec::new() };
    let side = |place: usize| Some(if place.is_multiple_of(2) { Side::Left } else { Side::Right });
    Scenario {
        seed: 1,
        replicas,
        adversaries: Vec::new(),
        damaged: Vec::new(),
        sides: vec![(0, (0..replicas).map(side).collect())],
        plants: Vec::new(),
        heal_ms,
        weather: Weather::CALM,
        faults: Vec::new(),
        submissions: (0..replicas).map(submission).collect(),
        errands: Vec::new(),
        clocks: vec![Clock { offset_ms: 0, rate_per_mille: 1_000, skew_ms: 0 }; replicas],
        segment_bytes: 1 << 16,
        checkpoint_interval: 16,
        joins: None,
        telemetry: None,
    }
}

/// The sets of `size` among `replicas`, by their places.
fn subsets(replicas: usize, size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let smaller = subsets(replicas, size - 1);
    let larger = smaller.into_iter().flat_map(|set: Vec<usize>| {
        let first = set.last().map_or(0, |last| last + 1);
        (first..replicas).map(move |place| [set.as_slice(), &[place]].concat())
    });
    larger.collect()
}

/// Every placement of f leaders that never speak.
fn dead_leaders(replicas: usize) -> Case {
    let faults = CommitteeSize::new(replicas).map_or(0, CommitteeSize::faults);
    let scenario = |dead: Vec<usize>| {
        let mut scenario = quiet(replicas, 10);
        scenario.adversaries = dead.iter().map(|place| (replica(*place), Kind::Silent)).collect();
        scenario.submissions.retain(|submission| !dead.contains(&submission.at.as_usize()));
        scenario
    };
    let scenarios = subsets(replicas, faults).into_iter().map(scenario).collect();
    Case { name: "f leaders are dead, every placement", replicas, scenarios }
}

fn partition(left: [usize; 2], for_ms: u64) -> Fault {
    Fault::Partition { part: left.map(replica).to_vec(), for_ms }
}

/// Commands at both sides before and during the partition.
fn busy(mut scenario: Scenario) -> Scenario {
    for at_ms in (10..scenario.heal_ms).step_by(700) {
        let place = usize::try_from(at_ms / 700).map_or(0, |number| number % scenario.replicas);
        scenario.submissions.push(Submission { at_ms, at: replica(place), body: Vec::new() });
    }
    scenario
}

/// Every 2|2 partition, of every length from less than a view to many.
fn halves() -> Case {
    let lengths = [300, 900, 1_100, 2_600, 5_000, 9_000, 20_000, 60_000];
    let scenario = |(left, for_ms): ([usize; 2], u64)| {
        let mut scenario = busy(quiet(4, for_ms + 2_000));
        scenario.faults = vec![(2_000, partition(left, for_ms))];
        scenario
    };
    let halves = [[0, 1], [0, 2], [0, 3]];
    let variants = halves.into_iter().flat_map(|left| lengths.map(|for_ms| (left, for_ms)));
    Case { name: "2\\|2 partition", replicas: 4, scenarios: variants.map(scenario).collect() }
}

/// One 2|2 partition after the other, each in another way.
fn changing_halves() -> Case {
    let scenario = |each_ms: u64| {
        let mut scenario = busy(quiet(4, 12 * each_ms + 1_000));
        let halves = [[0, 1], [0, 2], [0, 3]].into_iter().cycle().take(12);
        scenario.faults = halves
            .zip(0..)
            .map(|(left, number)| (1_000 + number * each_ms, partition(left, each_ms - 30)))
            .collect();
        scenario
    };
    let scenarios = [500, 1_030, 1_500, 3_000, 8_100].map(scenario).into();
    Case { name: "2\\|2 partitions, one after the other", replicas: 4, scenarios }
}

/// f adversaries that make others lock alone, all the time and after.
fn hidden_locks(replicas: usize) -> Case {
    let faults = CommitteeSize::new(replicas).map_or(0, CommitteeSize::faults);
    let scenario = |seed| {
        let mut scenario = busy(quiet(replicas, 30_000));
        scenario.seed = seed;
        let first = usize::try_from(seed).map_or(0, |seed| seed % replicas);
        let places = (0..faults).map(|number| (first + 2 * number) % replicas);
        scenario.adversaries = places.map(|place| (replica(place), Kind::HiddenLock)).collect();
        let liars: Vec<_> = scenario.adversaries.iter().map(|(liar, _)| *liar).collect();
        scenario.submissions.retain(|submission| !liars.contains(&submission.at));
        scenario
    };
    Case { name: "hidden locks, again and again", replicas, scenarios: (0..8).map(scenario).collect() }
}

/// All lose their power at once, at different points of their work.
fn all_lose_power(replicas: usize) -> Case {
    let scenario = |outputs: u64| {
        let mut scenario = busy(quiet(replicas, 6_000));
        scenario.seed = outputs;
        let crash = |place: usize| Fault::Crash {
            replica: replica(place),
            after_outputs: outputs + place as u64 * (outputs % 3),
            crash: Crash::Power,
            away_ms: 60_000,
        };
        scenario.faults = (0..replicas).map(|place| (4_000, crash(place))).collect();
        scenario
    };
    Case { name: "all lost power at once", replicas, scenarios: (0..24).map(scenario).collect() }
}

/// One replica is slow for ever, by more than a view's time or by less.
fn one_slow(replicas: usize) -> Case {
    let scenario = |(place, by_ms): (usize, u64)| {
        let mut scenario = busy(quiet(replicas, 5_000));
        let slow = |for_ms| Fault::Slow { replica: replica(place), by_ms, for_ms };
        scenario.faults = vec![(0, slow(5_000)), (5_001, slow(Millis::from_secs(3_600).as_millis()))];
        scenario
    };
    let variants = (0..replicas).flat_map(|place| [400, 900, 2_500].map(|by_ms| (place, by_ms)));
    Case { name: "one is slow for ever", replicas, scenarios: variants.map(scenario).collect() }
}

/// The last of seven replicas starts when the journals of the others hold only the newest blocks, but for two, which give
/// it one block at a time: those at these places.
#[must_use]
pub fn joins_beside_drips(drips: [usize; 2]) -> Scenario {
    let mut scenario = quiet(7, 60_000);
    scenario.adversaries = drips.map(|place| (replica(place), Kind::DrippingSyncPeer)).to_vec();
    scenario.sides.clear();
    let honest: Vec<_> = (0..6).filter(|place| !drips.contains(place)).collect();
    let submission = |(number, at_ms): (usize, u64)| {
        let at = replica(honest[number % honest.len()]);
        Submission { at_ms, at, body: Vec::new() }
    };
    let joins_ms = scenario.heal_ms - 1_000;
    scenario.submissions =
        (10..joins_ms).step_by(60).enumerate().map(|(n, at_ms)| submission((n, at_ms))).collect();
    scenario.joins = Some((replica(6), joins_ms));
    scenario
}

/// Replica 0 has timed out in view 3, which it alone has entered, replica 1 in view 2, replica 2 in view 1. Replica 3, whose
/// timeouts made the certificates, is gone. So the three can meet only if replica 0 has kept the certificate of view 2, and
/// replica 1 that of view 1.
#[must_use]
pub fn each_in_another_view() -> Scenario {
    let mut scenario = quiet(4, 7_500);
    let submission = |place| Submission { at_ms: 10, at: replica(place), body: Vec::new() };
    scenario.submissions = (0..4).map(submission).collect();
    // All links are cut but for two times: replicas 0, 1 and 3 hear each other once they have given view 1 up, and do not
    // any more when they give up view 2, whose leader is replica 2; then replica 0 alone hears of the others' timeouts.
    let (meeting_ms, hearing_ms) = ((1_500, 2_400), (4_000, 5_400));
    for from in 0..4 {
        for to in (0..4).filter(|to| *to != from) {
            let mut open = Vec::new();
            if from != 2 && to != 2 {
                open.push(meeting_ms);
            }
            if to == 0 && from != 2 {
                open.push(hearing_ms);
            }
            let begins = [0].into_iter().chain(open.iter().map(|(_, end)| *end));
            let ends = open.iter().map(|(begin, _)| *begin).chain([scenario.heal_ms]);
            let cuts = begins.zip(ends).map(|(begin, end)| {
                (begin, Fault::Cut { from: replica(from), to: replica(to), for_ms: end - begin })
            });
            scenario.faults.extend(cuts);
        }
    }
    scenario.damaged = vec![(replica(3), Damage::Gone)];
    scenario.faults.push((7_300, Fault::Damage { replica: replica(3), damage: Damage::Gone, away_ms: 0 }));
    let crash = |place| Fault::Crash {
        replica: replica(place),
        after_outputs: 0,
        crash: Crash::Power,
        away_ms: 60_000,
    };
    scenario.faults.extend((0..3).map(|place| (7_300, crash(place))));
    scenario
}
