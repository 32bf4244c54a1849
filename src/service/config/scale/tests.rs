//! What a speed does to spans of time, and what it leaves alone.

use super::{Speed, scaled};
use crate::knowledge::genesis::Genesis;
use crate::service::config::{Completion, POLICY_EXAMPLE, PolicyFile, policy_text};
use crate::types::{Millis, SecretKey};

fn genesis() -> Genesis {
    let file = PolicyFile::parse("example", POLICY_EXAMPLE).expect("it is valid");
    let key = SecretKey::from_seed(&[3; 32]).public();
    let completion = Completion {
        agents: file.targets().map(|target| (target.clone(), key)).collect(),
        owner: Some("owner-0".to_owned()),
    };
    file.genesis(&completion).expect("every target is complete")
}

fn speed(text: &str) -> Speed {
    text.parse().expect("a speed")
}

#[test]
fn a_speed_is_a_number_from_one_to_a_thousand() {
    for (text, thousandths) in [("1", Some(1000)), ("2.5", Some(2500)), ("1000", Some(1_000_000))] {
        assert_eq!(text.parse().ok().map(Speed::as_thousandths), thousandths, "{text}");
    }
    for text in ["0", "0.999", "1000.001", "1.0005", "-1", "", "fast", "99999999999999999999999999999"] {
        assert!(text.parse::<Speed>().is_err(), "{text}");
    }
}

#[test]
fn spans_are_divided_and_never_become_nothing() {
    let rows = [
        ("30", 10_000, 333),
        ("30", 1, 1),
        ("30", 0, 0),
        ("1", 7, 7),
        ("2.5", 10_000, 4000),
        ("1000", u64::MAX, u64::MAX / 1000),
    ];
    for (at, before, after) in rows {
        assert_eq!(speed(at).shorten(Millis::new(before)), Millis::new(after), "{before} ms at {at}");
    }
}

#[test]
fn real_time_changes_nothing() {
    assert_eq!(scaled(&genesis(), Speed::REAL_TIME), genesis());
}

#[test]
fn what_machines_and_networks_need_keeps_a_floor() {
    let genesis = scaled(&genesis(), speed("50"));
    let parameters = genesis.parameters;
    assert_eq!(parameters.window, Millis::new(200));
    assert_eq!(parameters.grace, Millis::new(100));
    assert_eq!(parameters.settle, Millis::new(300));
    assert_eq!(parameters.deadline, Millis::new(3000));
    assert_eq!(parameters.activation_limit, Millis::new(5000));
    assert_eq!(parameters.head_slot, Millis::new(200));
    assert_eq!(parameters.stale_after, Millis::new(5000));
    assert_eq!(parameters.longest_hold, Millis::new(1800));
    assert_eq!(genesis.targets[0].cooldown, Millis::new(2400));
    let action = genesis.policies[0].action.as_ref().expect("the policy acts");
    assert_eq!((action.cooldown, action.expiry), (Millis::new(6000), Millis::new(18_000)));
}

#[test]
fn a_scaled_genesis_is_still_allowed() {
    for at in ["1", "1.001", "3", "10", "30", "60", "100", "333.333", "1000"] {
        let genesis = scaled(&genesis(), speed(at));
        let read = PolicyFile::parse("scaled", &policy_text(&genesis)).expect("it is valid");
        assert_eq!(read.genesis(&Completion::default()), Ok(genesis), "at speed {at}");
    }
}
