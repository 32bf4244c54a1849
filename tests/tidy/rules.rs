//! The rules and their tables. They look at one file's text at a time; reading the tree is not theirs.
//!
//! Invariant: a file or folder that may touch the world is listed here by name, or it may not.

use std::fmt;

use super::source::{paths, without_comments_and_strings, without_tests};

/// Who may import whom. `service` and `cli` may import everything and are not listed.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("consensus", &["types"]),
    ("knowledge", &["types"]),
    ("monitor", &["knowledge", "types"]),
    ("analyze", &["knowledge", "types"]),
    ("plan", &["knowledge", "types"]),
    ("execute", &["knowledge", "types"]),
    ("backtest", &["consensus", "cycle", "execute", "knowledge", "monitor", "types"]),
    ("cycle", &["analyze", "consensus", "execute", "knowledge", "monitor", "plan", "types"]),
];

/// Files and folders that may touch the world: the clock, files, sockets, threads, the environment.
pub(crate) const IO: &[&str] = &[
    "src/main.rs",
    "src/cli/",
    "src/consensus/journal/files.rs",
    "src/consensus/journal/tests/files.rs",
    "src/consensus/transport/",
    "src/monitor/recording.rs",
    "src/service/",
    "sim/src/main.rs",
];

/// What only those may name.
const WORLD: &[&[&str]] = &[
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
];

/// The one file that computes fault bounds and quorums.
const QUORUM_ARITHMETIC: &str = "src/types/quorum.rs";

/// Words that mark unfinished work or tell how the text came to be. They are written in two parts so that
/// this file keeps its own rule.
const UNWANTED: &[&str] = &[
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("for", " now"),
    concat!("in a", " real system"),
    concat!("in a", " real implementation"),
    concat!("simplified", " version"),
    concat!("as", " requested"),
    concat!("as", " instructed"),
];

const MAIN_LINES: usize = 60;

/// One rule broken in one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// All breaches of one file.
pub(crate) fn check(path: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut breach = |line: usize, rule: String| breaches.push(Breach { path: path.to_owned(), line, rule });
    for (number, line) in text.lines().enumerate() {
        for word in UNWANTED.iter().filter(|word| stands_in(line, word)) {
            breach(number + 1, format!("{word:?} may not stand in the project"));
        }
    }
    if !path.ends_with(".rs") {
        return breaches;
    }
    if !text.starts_with("//!") {
        breach(1, "a file opens with `//!`: what it is, what it is not, one invariant".to_owned());
    }
    if path == "src/main.rs" && text.lines().count() > MAIN_LINES {
        breach(MAIN_LINES + 1, format!("main.rs has at most {MAIN_LINES} lines"));
    }
    let code = without_comments_and_strings(text);
    let shipped = without_tests(path, &code);
    for (line, named) in paths(shipped) {
        check_import(path, line, &named, &mut breach);
        check_world(path, line, &named, &mut breach);
    }
    if path != QUORUM_ARITHMETIC && !path.starts_with("tests/") {
        for (number, line) in shipped.lines().enumerate().filter(|(_, line)| is_quorum_arithmetic(line)) {
            breach(number + 1, format!("`{}`: only {QUORUM_ARITHMETIC} computes quorums", line.trim()));
        }
    }
    breaches
}

/// Whether the word stands in the line by itself: `mktemp` templates are no marks of unfinished work.
fn stands_in(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        !line[..at].ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric)
    })
}

fn check_import(path: &str, line: usize, named: &[String], breach: &mut impl FnMut(usize, String)) {
    let Some((module, rest)) = path.strip_prefix("src/").and_then(|below| below.split_once('/')) else {
        return;
    };
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else { return };
    let depth = 1 + rest.split('/').filter(|part| *part != "mod.rs").count();
    if named.iter().take_while(|part| *part == "super").count() >= depth {
        breach(line, "another module is imported by its `crate::` path".to_owned());
    }
    if let [first, other, ..] = named
        && first == "crate"
        && other != module
        && !allowed.contains(&other.as_str())
    {
        breach(line, format!("`{module}` may not import `{other}`"));
    }
}

fn check_world(path: &str, line: usize, named: &[String], breach: &mut impl FnMut(usize, String)) {
    let is_core = path.starts_with("src/") || path.starts_with("sim/src/");
    if !is_core || IO.iter().any(|entry| covers(entry, path)) {
        return;
    }
    for world in WORLD {
        if named.len() >= world.len() && named.iter().zip(*world).all(|(part, other)| part == other) {
            breach(line, format!("`{}` outside the files listed as I/O", world.join("::")));
        }
    }
}

fn covers(entry: &str, path: &str) -> bool {
    path == entry || (entry.ends_with('/') && path.starts_with(entry))
}

/// An entry of [`IO`] exists, and in the library it is compiled only with the feature `service`.
pub(crate) fn check_io_entry(entry: &str, files: &[(String, String)]) -> Vec<Breach> {
    let breach = |rule: &str| vec![Breach { path: entry.to_owned(), line: 1, rule: rule.to_owned() }];
    if !files.iter().any(|(path, _)| covers(entry, path)) {
        return breach("is listed as I/O and does not exist");
    }
    if entry.starts_with("sim/") || entry == "src/main.rs" {
        return Vec::new();
    }
    let module = entry.trim_end_matches('/').trim_end_matches(".rs");
    let gated = module.rsplit_once('/').is_some_and(|(folder, name)| {
        let parent = if folder == "src" { "src/lib.rs".to_owned() } else { format!("{folder}/mod.rs") };
        files.iter().any(|(path, text)| *path == parent && declares_behind_service(text, name))
    });
    if gated { Vec::new() } else { breach("is listed as I/O but not behind `#[cfg(feature = \"service\")]`") }
}

fn declares_behind_service(text: &str, name: &str) -> bool {
    let declaration = format!("mod {name};");
    let mut gate = false;
    for line in text.lines().map(str::trim) {
        if line.ends_with(&declaration) && gate {
            return true;
        }
        gate = line == "#[cfg(feature = \"service\")]";
    }
    false
}

/// `f + 1`, `2 * f + 1`, `(n - 1) / 3` and their kin, in any spacing.
fn is_quorum_arithmetic(line: &str) -> bool {
    let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    let ends_in_name = |text: &str, name: &str| {
        text.strip_suffix(name)
            .is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let plus_one = dense.match_indices("+1").any(|(at, sign)| {
        let (before, after) = (&dense[..at], &dense[at + sign.len()..]);
        let one = !after.starts_with(|c: char| c.is_ascii_digit() || c == '_' || c == '.');
        one && ["f", "faults", "faults()"].iter().any(|name| ends_in_name(before, name))
    });
    plus_one || dense.contains("-1)/3") || dense.contains("*2/3")
}

fn rules(path: &str, code: &str) -> Vec<String> {
    check(path, &format!("//! A file.\n{code}")).into_iter().map(|breach| breach.rule).collect()
}

#[test]
fn imports_outside_the_table_are_refused_in_every_spelling() {
    for code in [
        "use crate::plan::Planned;",
        "use crate::{types::Digest, plan};",
        "use crate::{\n    knowledge::{plan, policy},\n    plan::check,\n};",
        "fn f() { crate::plan::check() }",
        "use super::super::plan;",
    ] {
        assert_eq!(rules("src/analyze/threshold.rs", code).len(), 1, "{code}");
    }
    for code in [
        "use crate::knowledge::plan::Plan;",
        "use crate::{analyze::Detector, types::{Digest, Epoch}};",
        "use super::Detector;",
        "// use crate::plan::Planned;",
        "const TEXT: &str = \"crate::plan::Planned\";",
    ] {
        assert_eq!(rules("src/analyze/threshold.rs", code), Vec::<String>::new(), "{code}");
    }
    assert_eq!(rules("src/consensus/core/votes.rs", "use super::super::message;"), Vec::<String>::new());
    assert_eq!(rules("src/service/wiring.rs", "use crate::plan::Planned;"), Vec::<String>::new());
}

#[test]
fn the_world_is_refused_outside_the_listed_files() {
    for code in [
        "use std::{collections::BTreeMap, fs};",
        "use std::time::{Duration, Instant};",
        "use std::collections::{BTreeMap, HashMap};",
        "fn f() { std::thread::yield_now() }",
        "fn f() { let _ = std::env::var(\"HOME\"); }",
        "use std::net::SocketAddr;",
    ] {
        assert_eq!(rules("src/consensus/core.rs", code).len(), 1, "{code}");
        assert_eq!(rules("src/service/clock.rs", code), Vec::<String>::new(), "{code}");
    }
    assert_eq!(rules("src/consensus/core.rs", "use std::time::Duration;"), Vec::<String>::new());
    let in_tests = "#[cfg(test)]\nmod tests {\n    use std::fs;\n}";
    assert_eq!(rules("src/consensus/core.rs", in_tests), Vec::<String>::new());
}

#[test]
fn listed_files_exist_and_are_gated() {
    let tree = |gate: &str| {
        vec![
            ("src/monitor/mod.rs".to_owned(), format!("//! x\n{gate}\npub mod otlp;")),
            ("src/monitor/otlp.rs".to_owned(), String::new()),
        ]
    };
    assert_eq!(check_io_entry("src/monitor/otlp.rs", &tree("#[cfg(feature = \"service\")]")), []);
    assert_eq!(check_io_entry("src/monitor/otlp.rs", &tree("")).len(), 1);
    assert_eq!(check_io_entry("src/monitor/gone.rs", &tree("")).len(), 1);
}

#[test]
fn quorum_arithmetic_lives_in_one_file() {
    for code in [
        "let q = 2 * f + 1;",
        "let q = size.faults()+1;",
        "let f = (n - 1) / 3;",
        "let q = n * 2 / 3;",
        "if votes > 2 * self.faults + 1 {}",
    ] {
        assert_eq!(rules("src/consensus/core.rs", code).len(), 1, "{code}");
        assert_eq!(rules("src/types/quorum.rs", code), Vec::<String>::new(), "{code}");
    }
    for code in ["let next = buf + 1;", "let x = f + 10;", "let trimmed = 2 * size.faults();"] {
        assert_eq!(rules("src/consensus/core.rs", code), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn a_file_without_its_opening_a_long_main_and_unfinished_work_are_refused() {
    assert_eq!(check("src/plan/policy.rs", "use std::fmt;").len(), 1);
    assert_eq!(rules("src/main.rs", &"\n".repeat(60)).len(), 1);
    assert_eq!(rules("src/main.rs", &"\n".repeat(59)).len(), 0);
    assert_eq!(rules("src/plan/policy.rs", concat!("fn f() { to", "do!() }")).len(), 1);
    assert_eq!(check("docs/operations.md", concat!("This is enough for", " now.")).len(), 1);
    assert_eq!(check("scripts/demo", concat!("# XX", "X: ports")).len(), 1);
    assert_eq!(check("scripts/demo", "mktemp -d demo.XXXXXX").len(), 0);
}
