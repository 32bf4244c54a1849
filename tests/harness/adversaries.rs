//! The adversaries' program, `quorate-byzantine`, built by the test that needs it with the cargo that built the test, so
//! that `cargo test` alone is enough on a clean clone.
//!
//! Invariant: it is of the same build as the replicas.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Builds it; where it lies.
pub(crate) fn program() -> PathBuf {
    let replica = Path::new(env!("CARGO_BIN_EXE_quorate"));
    let profile = replica.parent().expect("a binary lies in a folder");
    let target = profile.parent().expect("a profile's folder lies in the target folder");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "quorate-byzantine", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    profile.join("quorate-byzantine")
}
