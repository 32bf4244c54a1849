//! `quorate backtest` against plants that are processes: the one in Python that is an example, and ones that die, stall
//! or talk nonsense. Invariant: every wait ends by itself, and no test looks at a clock.
#![cfg(feature = "service")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn backtest(policy: &str, plant: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .current_dir(root())
        .args(["--output", "jsonl", "backtest", "--policy", policy, "--plant", plant])
        .args(more)
        .output()
        .expect("the program runs")
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const DRAIN: &str = "examples/plants/drain.toml";

/// Answers every order with a level of 500, but the fourth with what the test says.
fn talks(fourth: &str) -> String {
    format!(
        r#"python3 -c '
import json, sys
for number, line in enumerate(sys.stdin, 1):
    now_ms = json.loads(line)["now_ms"]
    if number == 4:
        {fourth}
    sample = {{"source": "tank", "name": "tank.level", "kind": "gauge", "value": 500, "attributes": {{"tank": "north"}}}}
    print(json.dumps({{"v": 1, "now_ms": now_ms, "samples": [sample]}}), flush=True)
'"#
    )
}

#[test]
fn a_plant_in_another_language_is_driven_to_its_end_and_twice_the_same() {
    let run = || backtest(DRAIN, "python3 examples/plants/drain.py", &[]);
    let (one, other) = (run(), run());
    assert_eq!(one.status.code(), Some(0), "{}", complaint(&one));
    assert_eq!(String::from_utf8_lossy(&one.stdout), String::from_utf8_lossy(&other.stdout));
    let lines = lines(&one);
    let (end, plans) = lines.split_last().expect("it tells how it ended");
    assert_eq!((end["ended"].as_str(), end["account"]["violation_minutes"].is_u64()), (Some("done"), true));
    let slots = |plan: &Value| plan["to"]["slots"].as_u64().expect("pumps are slots");
    let most = plans.iter().map(slots).max().expect("the tank fills");
    assert!(most >= 6, "thirty litres a second need six pumps: {plans:?}");
    assert!(plans.last().is_some_and(|last| slots(last) < most), "and fewer when it is empty");
}

/// Each row: what the fourth line is instead, and what is said of it.
#[test]
fn a_plant_that_fails_ends_it_with_its_last_state_and_the_reason() {
    let rows = [
        ("sys.exit(3)", "the plant ended before its line 4 (exit status: 3)"),
        ("import time; time.sleep(600)", "the plant gave no line 4 within 1500 ms (--time-out)"),
        ("print(\"hello\", flush=True)", "the plant's line 4, column 1: expected value"),
        (
            "print(json.dumps({\"v\": 1, \"now_ms\": now_ms, \"samples\": [], \"level\": 3}), flush=True)",
            "the plant's line 4, column 56: unknown field `level`, expected one of `v`, `now_ms`",
        ),
        (
            "print(json.dumps({\"v\": 1, \"now_ms\": now_ms + 1, \"samples\": []}), flush=True)",
            "the plant's line 4, field now_ms: 1800000004001 is not the order's moment, 1800000004000",
        ),
        ("print(\"[\" * (5 << 20), flush=True)", "the plant's line 4 is longer than 4194304 bytes"),
    ];
    for (fourth, expected) in rows {
        let output = backtest(DRAIN, &talks(fourth), &["--time-out", "1500ms"]);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{fourth}: {complaint}");
        assert!(complaint.contains(expected), "{fourth} is told: {complaint}");
        let lines = lines(&output);
        let end = lines.last().expect("it tells how it ended");
        assert_eq!(
            (end["ended"].as_str(), end["after_ms"].as_u64()),
            (Some("failed"), Some(3000)),
            "{fourth}"
        );
        assert_eq!(end["last"]["samples"][0]["value"].as_f64(), Some(500.0), "{fourth}");
        assert_eq!(end["desired"][0]["state"]["slots"].as_u64(), Some(1), "{fourth}");
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_before_anything_runs() {
    let rows: [(&[&str], i32, &str); 4] = [
        (&["--step", "3s"], 78, "a step of 3000 ms does not divide the window of 10000 ms"),
        (&["--step", "3"], 2, "a span has a number and a unit"),
        (&["--compare"], 2, "--plant queue"),
        (&["--arrivals", "x.csv"], 2, "--plant queue"),
    ];
    for (more, code, expected) in rows {
        let output = backtest(DRAIN, "cat", more);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", complaint(&output));
        assert!(complaint(&output).contains(expected), "{more:?}: {}", complaint(&output));
    }
}
