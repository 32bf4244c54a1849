//! The project's own rules, checked on the text of its files: who may import whom, where the world may be
//! touched, where quorum arithmetic lives, and what may not stand in a file at all.
//!
//! It is no linter of style: the compiler, clippy and rustfmt have that. Invariant: every rule has a test
//! in `rules` that breaks it.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rules::{IO, check, check_io_entry};

#[test]
fn the_tree_keeps_its_rules() {
    let files = tree();
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "the tree was not found");
    let breaches: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .chain(IO.iter().flat_map(|entry| check_io_entry(entry, &files)))
        .map(|breach| breach.to_string())
        .collect();
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches.join("\n"));
}

/// The database remembers a migration by its number: of two with one number it refuses the second.
#[test]
fn no_two_migrations_have_one_number() {
    let files = tree();
    let numbers: Vec<&str> = files
        .iter()
        .filter_map(|(path, _)| path.strip_prefix("migrations/")?.split_once('_').map(|(number, _)| number))
        .collect();
    assert!(!numbers.is_empty() && numbers.windows(2).all(|pair| pair[0] != pair[1]), "{numbers:?}");
}

/// The table of faults names tests as `file::test`: the file or folder they are in, and the function.
#[test]
fn every_test_that_a_fault_is_said_to_have_exists() {
    let files = tree();
    let text = files.iter().find(|(path, _)| path == "docs/verification.md").expect("the table is there");
    let table = text.1.split("<!-- faults -->").nth(1).expect("the table begins");
    let named: Vec<(&str, &str)> = table.split('`').filter_map(|name| name.split_once("::")).collect();
    let exists = |(place, test): &&(&str, &str)| {
        let function = format!("fn {test}()");
        files.iter().any(|(path, text)| {
            let within = path.trim_end_matches(".rs").split('/').any(|part| part == *place);
            within && path.ends_with(".rs") && text.contains(&function)
        })
    };
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(named.len() > 30, "only {} tests are named", named.len());
    assert!(missing.is_empty(), "these tests do not exist: {missing:#?}");
}

/// A planted bug that no longer fits the code plants nothing.
#[test]
fn every_planted_bug_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut patches = Vec::new();
    for entry in fs::read_dir(root.join("sim/mutants")).expect("the planted bugs are there") {
        patches.push(entry.expect("a folder of the project can be listed").path());
    }
    patches.sort();
    let fails = |patch: &&PathBuf| {
        let applied = Command::new("git").current_dir(root).args(["apply", "--check"]).arg(patch).output();
        !applied.expect("git runs").status.success()
    };
    let failing: Vec<_> = patches.iter().filter(fails).collect();
    assert!(patches.len() >= 20, "only {} planted bugs", patches.len());
    assert!(failing.is_empty(), "these no longer apply: {failing:#?}");
}

/// Every text file of the project with its path from the root.
fn tree() -> Vec<(String, String)> {
    const FOLDERS: &[&str] =
        &["src", "sim", "byzantine", "tests", "benches", "fuzz", "examples", "scripts", "docs", "migrations"];
    const FILES: &[&str] =
        &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "justfile", "Cargo.toml"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(root, &root.join(folder), &mut found);
    }
    for file in FILES {
        if let Ok(text) = fs::read_to_string(root.join(file)) {
            found.push(((*file).to_owned(), text));
        }
    }
    found.sort();
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    const KINDS: &[&str] = &["rs", "md", "toml", "sh", "py", "sql", ""];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the project can be listed").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(root, &path, found);
            }
            continue;
        }
        let kind = path.extension().map_or("", |kind| kind.to_str().unwrap_or("not text"));
        let name = path.strip_prefix(root).expect("it lies below the root").to_string_lossy();
        match fs::read_to_string(&path) {
            Ok(text) if KINDS.contains(&kind) => found.push((name.into_owned(), text)),
            // Recordings and pictures are no text and no concern of these rules.
            Ok(_) | Err(_) => {}
        }
    }
}
