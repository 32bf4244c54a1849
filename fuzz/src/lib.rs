//! Fuzz targets: one function from bytes for everything that reads what a peer, a client or a file says.
//!
//! libFuzzer (`fuzz/libfuzzer`, nightly) and the replay of the corpora (`tests/replay.rs`, stable) call the same
//! functions. A target panics when the code under test does, or when what must hold of it does not: what decodes
//! encodes to the same bytes, equal logs give equal states, and so on. It reads no file, no clock and no randomness.
//! Invariant: every target is in [`TARGETS`], with a bound on the memory that an input may take.

pub mod api;
pub mod commands;
pub mod documents;
pub mod evidence;
pub mod files;
pub mod journal;
pub mod messages;
pub mod script;
pub mod seeds;
pub mod snapshots;
pub mod telemetry;
pub mod world;

use peak_alloc::PeakAlloc;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// Its name, and its corpus' folder.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]),
    /// How much memory an input of no bytes may take.
    pub base_bytes: usize,
    /// How much more for each of its bytes.
    pub bytes_per_byte: usize,
}

/// All targets. What stands before a body is what its reader may take before it has seen a byte of it: borsh makes room
/// for a mebibyte of a claimed byte string, a decompressor for its window. The rest is a fixed multiple of the bytes that
/// came, with room above what the corpora take.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: messages::frames, base_bytes: 16 * KIB, bytes_per_byte: 16 },
    Target { name: "messages", run: messages::messages, base_bytes: 2 * MIB, bytes_per_byte: 64 },
    Target { name: "replica", run: messages::replica, base_bytes: 4 * MIB, bytes_per_byte: 1024 },
    Target { name: "endorsements", run: messages::endorsements, base_bytes: 2 * MIB, bytes_per_byte: 1024 },
    Target { name: "records", run: journal::records, base_bytes: 3 * MIB, bytes_per_byte: 64 },
    Target { name: "segments", run: journal::segments, base_bytes: 64 * KIB, bytes_per_byte: 64 },
    Target { name: "envelopes", run: documents::envelopes, base_bytes: 16 * KIB, bytes_per_byte: 64 },
    Target { name: "documents", run: documents::documents, base_bytes: 64 * KIB, bytes_per_byte: 128 },
    Target { name: "answers", run: documents::answers, base_bytes: 32 * KIB, bytes_per_byte: 128 },
    Target { name: "evidence", run: evidence::evidence, base_bytes: 2 * MIB, bytes_per_byte: 256 },
    Target { name: "commands", run: commands::commands, base_bytes: 2 * MIB, bytes_per_byte: 256 },
    Target { name: "fold", run: commands::fold, base_bytes: 4 * MIB, bytes_per_byte: 4096 },
    Target { name: "cycle", run: commands::cycle, base_bytes: 4 * MIB, bytes_per_byte: 8192 },
    Target { name: "snapshots", run: snapshots::snapshots, base_bytes: 4 * MIB, bytes_per_byte: 8192 },
    Target { name: "snapshot_bytes", run: snapshots::bytes, base_bytes: 2 * MIB, bytes_per_byte: 64 },
    Target { name: "otlp", run: telemetry::otlp, base_bytes: 64 * KIB, bytes_per_byte: 256 },
    Target {
        name: "otlp_compressed",
        run: telemetry::otlp_compressed,
        base_bytes: 16 * MIB,
        bytes_per_byte: 64,
    },
    Target { name: "remote_write", run: telemetry::remote_write, base_bytes: 16 * MIB, bytes_per_byte: 1024 },
    Target { name: "samples", run: telemetry::samples, base_bytes: 64 * KIB, bytes_per_byte: 256 },
    Target { name: "recordings", run: telemetry::recordings, base_bytes: 16 * MIB, bytes_per_byte: 8192 },
    Target { name: "api", run: api::requests, base_bytes: 256 * KIB, bytes_per_byte: 256 },
    Target { name: "policies", run: files::policies, base_bytes: 256 * KIB, bytes_per_byte: 512 },
    Target { name: "configuration", run: files::configuration, base_bytes: 64 * KIB, bytes_per_byte: 256 },
];

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Target {
    /// The target with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Makes what is made once in a process, so that no input is charged for it.
    pub fn warm_up(&self) {
        (self.run)(&[]);
        (self.run)(&[0; 64]);
    }

    /// The most memory that this input may take.
    #[must_use]
    pub const fn bound(&self, input: &[u8]) -> usize {
        self.base_bytes + self.bytes_per_byte * input.len()
    }
}

/// Runs a target, and returns how many bytes it held at most beyond what was held before. Nothing else may run in the
/// process meanwhile.
pub fn run_counted(target: &Target, input: &[u8], allocator: &PeakAlloc) -> usize {
    allocator.reset_peak_usage();
    let before = allocator.current_usage();
    (target.run)(input);
    allocator.peak_usage().saturating_sub(before)
}

/// The same, and more memory than the target's bound is a panic.
pub fn run_within_its_bound(target: &Target, input: &[u8], allocator: &PeakAlloc) {
    let (held, most) = (run_counted(target, input, allocator), target.bound(input));
    assert!(
        held <= most,
        "{} bytes of {} took {held} bytes of memory; at most {most} are allowed",
        input.len(),
        target.name
    );
}
