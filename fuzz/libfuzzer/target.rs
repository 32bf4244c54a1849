//! The one program for libFuzzer: it runs the target that `QUORATE_FUZZ_TARGET` names, so that a build serves all of
//! them. What a target does is in `quorate-fuzz`, where the replay on the stable compiler calls the same functions.
//! Invariant: an input that takes more memory than its target may is a finding like a panic.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use quorate_fuzz::{Target, run_within_its_bound};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("QUORATE_FUZZ_TARGET").expect("QUORATE_FUZZ_TARGET names a target");
        Target::named(&name).expect("QUORATE_FUZZ_TARGET is no target's name")
    })
}

fuzz_target!(init: { target().warm_up() }, |input: &[u8]| {
    run_within_its_bound(target(), input, &ALLOCATOR);
});
