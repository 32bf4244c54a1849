# Every check that CI runs is a recipe here; `scripts/test` calls them in order. `just --list` shows them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Checked queries are compared with the checked-in `.sqlx`, never with whatever database is at hand.
export SQLX_OFFLINE := "true"

[private]
default:
    @just --list

# Is everything formatted?
fmt:
    cargo fmt --all --check

# Lints, warnings denied; each package alone, because a workspace build unifies features
clippy:
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked -p quorate-byzantine --all-targets -- -D warnings
    cargo clippy --locked -p quorate-fuzz --all-targets -- -D warnings
    cargo clippy --locked -p quorate-sim --all-targets -- -D warnings

# The pure cores compile without anything that touches the world
cores:
    cargo check --locked --lib --no-default-features

# The simulator over seeds and committee sizes, built alone so that no feature leaks into the cores
sim:
    cargo build --locked --release -p quorate-sim
    cargo test --locked --release -p quorate-sim
    cargo run --locked --release --quiet -p quorate-sim -- --seeds 450

# Three hundred simulated hours and more on other seeds: most of an hour on two cores, not part of CI
sim-hours:
    cargo run --locked --release --quiet -p quorate-sim -- --first 1000 --seeds 3000

# The small exhaustive models with larger bounds; minutes. Those within CI's are among the simulator's tests
models:
    cargo test --locked --release -p quorate-sim --test models -- --include-ignored --nocapture

# Plants bugs in a copy of the tree and requires that the simulator sees each: all of them, or those named
mutants *NAMES:
    scripts/mutants {{NAMES}}

# Three of them that the first seeds see: a timeout and a seal that are not kept, statements that do not name the cluster
some-mutants:
    scripts/mutants timeout-not-kept endorsement-not-kept cluster-unsigned

# Do the docs build, with every link?
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib

# Licences, duplicate crates and sources
deny:
    cargo deny --locked check licenses bans sources

# Is `.sqlx` what the migrations and the queries say?
queries:
    scripts/sqlx-prepare --check

# All tests, and the fuzz targets over their corpora
test:
    cargo build --locked -p quorate-byzantine
    cargo test --locked
    cargo test --locked -p quorate-fuzz

# Fuzzes every target, or those that are named, for so many seconds each, on the nightly compiler; not part of CI
fuzz seconds="60" *targets:
    scripts/fuzz run {{seconds}} {{targets}}

# Kills replicas of a real cluster under load, so many times; CI does it 50 times
kill-loop kills="1000":
    cargo build --locked -p quorate-byzantine
    QUORATE_KILLS={{kills}} cargo test --locked --test kill_loop -- --nocapture replicas_killed_at_any_moment

# Prints a table of how long real processes take to recover: killed leaders, restarts, empty disks, Postgres away; some minutes
recovery-times:
    cargo test --locked --release --test kill_loop -- --ignored --nocapture recovery

# All the long runs, one after the other, whatever becomes of those before; a night on two cores
nightly:
    #!/usr/bin/env bash
    set -uo pipefail
    failed=()
    for step in sim-hours models mutants "fuzz 300" "kill-loop 1000" recovery-times; do
        printf '\n=== %s\n' "$step"
        # Unquoted: a step is a recipe with its arguments.
        {{just_executable()}} $step || failed+=("$step")
    done
    printf 'failed: %s\n' "${failed[*]:-none}"
    exit $((${#failed[@]} > 0))

# Writes the seeds of the fuzz corpora anew, after an encoding has changed
fuzz-seeds:
    cargo run --locked --quiet -p quorate-fuzz -- fuzz/corpus

# The demo on ports of its own, its documents verified once more by the verifier in Python
demo:
    #!/usr/bin/env bash
    set -euo pipefail
    dir=$(TMPDIR=/var/tmp mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    export QUORATE_DEMO_DIR=$dir QUORATE_DEMO_OTLP_PORT=24180 QUORATE_DEMO_BASE_PORT=24100
    scripts/demo | tee "$dir/demo.out"
    envelopes=$(sed -n '$s/^envelopes: //p' "$dir/demo.out")
    python3 examples/verify.py "$envelopes/root.json" "$envelopes/plan.json" "$envelopes/head.json"

# A real Airflow, a real incident, a certified plan; installs Airflow once, takes some ten minutes, not part of CI
airflow:
    scripts/airflow

# Who imports whom, where the world is touched, and what may not stand in a file
tidy:
    cargo test --locked --test tidy

# Prints files and functions over the usual sizes
sizes:
    scripts/sizes

# Attacks a replica with slow heads, bodies, readers and ranges; honest clients must be answered meanwhile. Not in CI: minutes long
slowhttptest:
    scripts/slowhttptest
