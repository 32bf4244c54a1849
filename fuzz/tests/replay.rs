//! The corpora, replayed by the functions that libFuzzer calls, on the stable compiler: no panic, and no more memory
//! than each target allows. A few thousand changed inputs follow from each corpus, always the same ones.
//!
//! It reads `fuzz/corpus` and changes nothing there. Invariant: one thread runs one input at a time, so that what is
//! counted is the input's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use peak_alloc::PeakAlloc;
use quorate_fuzz::{
    TARGETS, Target, run_within_its_bound,
    script::Script,
    seeds::{self, Seed},
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// How many changed inputs follow from each file of a corpus; `QUORATE_CHANGED` says another number.
const CHANGED: u64 = 24;

/// The most bytes of all corpora together: a clone of the repository stays small.
const MOST_CORPUS_BYTES: usize = 1024 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The committed inputs, and the seeds as they are written today: an encoding may have changed since.
fn inputs(target: &Target, seeds: &[Seed]) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus().join(target.name)).expect("each target has a corpus");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    let stored = paths.into_iter().map(|path| {
        let name = path.display().to_string();
        assert!(name.ends_with(".bin"), "{name}: a text would be held to the rules of texts");
        (name, fs::read(path).expect("a file can be read"))
    });
    let seeds = seeds.iter().filter(|(of, ..)| *of == target.name);
    let seeds = seeds.map(|(of, name, bytes)| (format!("{of}: seed {name}"), bytes.clone()));
    stored.chain(seeds).collect()
}

/// One test, because whatever ran beside it would be counted as well.
#[test]
fn no_input_panics_or_takes_more_memory_than_its_bound() {
    let changed =
        std::env::var("QUORATE_CHANGED").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(CHANGED);
    let (mut bytes, seeds) = (0, seeds::all());
    for target in TARGETS {
        target.warm_up();
        let inputs = inputs(target, &seeds);
        assert!(inputs.len() >= 2, "{} has inputs", target.name);
        for (name, input) in inputs {
            bytes += input.len();
            // Captured, and shown with a failure.
            println!("{name}");
            run_within_its_bound(target, &input, &ALLOCATOR);
            for round in 0..changed {
                let mut input = input.clone();
                Script::new(&noise(round, &input)).mutate(&mut input);
                println!("{name} changed {round}");
                run_within_its_bound(target, &input, &ALLOCATOR);
            }
        }
    }
    assert!(bytes <= MOST_CORPUS_BYTES, "{bytes} bytes of corpora");
}

/// Bytes that depend on the input and the round alone.
fn noise(round: u64, input: &[u8]) -> Vec<u8> {
    let mut state = input
        .iter()
        .fold(round.wrapping_add(1), |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let step = || {
        // SplitMix64, Steele et al. 2014.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56).to_le_bytes()[0]
    };
    std::iter::repeat_with(step).take(64).collect()
}
