//! The project's own rules, checked on the text of its files: who may import whom, where the world may be
//! touched, where quorum arithmetic lives, and what may not stand in a file at all.
//!
//! It is no linter of style: the compiler, clippy and rustfmt have that. Invariant: every rule has a test
//! in `rules` that breaks it.

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::{fs, path::Path};

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
