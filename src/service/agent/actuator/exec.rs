//! The actuator that runs a command of the operator's.
//!
//! `COMMAND [ARGS] read` writes the target's state to standard output, for example
//! `{"kind":"slots","slots":3}`. `COMMAND [ARGS] apply` and `COMMAND [ARGS] rollback` get the plan's exact
//! bytes on standard input and give the target its `desired` or its `rollback` state. Exit code 0 is success.
//!
//! It judges no answer. Invariant: a command that does not end in time is killed with its whole process
//! group, so that it cannot change the target after it was given up.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::{Actuator, ActuatorError};
use crate::{
    execute::agent::{Aim, Attempt},
    knowledge::{
        certified::Certified,
        plan::{DesiredState, Plan},
    },
    types::from_strict_json,
};

/// A state is some 30 bytes; this leaves room for spaces and a line end.
const STATE_BYTES: u64 = 4 * 1024;
/// As much of a complaint as a person reads.
const COMPLAINT_BYTES: u64 = 4 * 1024;

/// Runs a command of the operator's.
#[derive(Clone, Debug)]
pub struct Exec {
    program: String,
    arguments: Vec<String>,
    timeout: Duration,
}

impl Exec {
    /// The command with its first arguments; a call that takes longer than the timeout is killed.
    #[must_use]
    pub const fn new(program: String, arguments: Vec<String>, timeout: Duration) -> Self {
        Self { program, arguments, timeout }
    }

    async fn run(&self, verb: &'static str, input: &[u8]) -> Result<Vec<u8>, ActuatorError> {
        let command = || format!("{} {verb}", self.program);
        let failed = |source| ActuatorError::Command { command: command(), source };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let group = child.id();
        let (status, output, complaint) =
            match tokio::time::timeout(self.timeout, converse(&mut child, input)).await {
                Ok(ended) => ended.map_err(failed)?,
                Err(_) => {
                    kill_group(group);
                    child.wait().await.map_err(failed)?;
                    let seconds = self.timeout.as_secs();
                    return Err(ActuatorError::Timeout { command: command(), seconds });
                }
            };
        if status.success() {
            Ok(output)
        } else {
            let complaint = String::from_utf8_lossy(&complaint).trim().to_owned();
            Err(ActuatorError::Failed { command: command(), status, complaint })
        }
    }
}

impl Actuator for Exec {
    async fn read(&self, _: &Plan) -> Result<DesiredState, ActuatorError> {
        let output = self.run("read", b"").await?;
        from_strict_json(&output).map_err(|error| ActuatorError::NoState {
            command: format!("{} read", self.program),
            error: error.to_string(),
        })
    }

    async fn set(&self, plan: &Certified<Plan>, aim: Aim, _: Attempt) -> Result<(), ActuatorError> {
        let verb = match aim {
            Aim::Desired => "apply",
            Aim::Rollback | Aim::Revert => "rollback",
        };
        self.run(verb, plan.envelope().unverified_body()).await.map(drop)
    }
}

/// Writes the input, reads both outputs and waits for the end, all at once, so that no full pipe blocks.
async fn converse(
    child: &mut Child,
    input: &[u8],
) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input has closed the pipe: that is its choice.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output, complaint, status) =
        tokio::join!(write, read_some(stdout, STATE_BYTES), read_some(stderr, COMPLAINT_BYTES), child.wait());
    Ok((status?, output?, complaint?))
}

/// Reads to the end, and keeps so much of it.
async fn read_some(pipe: Option<impl AsyncRead + Unpin>, keep: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(keep).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

fn kill_group(group: Option<u32>) {
    let pid = group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It fails only when nothing of the group is left, which is what is wanted.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::{Actuator as _, ActuatorError, Exec};
    use crate::{
        execute::agent::{Aim, Attempt},
        knowledge::{
            fixtures::{certified_plan, plan},
            plan::DesiredState,
        },
    };
    use std::{path::Path, time::Duration};

    /// A shell with this script, whose `$1` is the verb and whose `$0` is the folder.
    fn shell(script: &str, folder: &Path, timeout: Duration) -> Exec {
        let arguments = ["-c", script, &folder.to_string_lossy()].map(str::to_owned).to_vec();
        Exec::new("/bin/sh".to_owned(), arguments, timeout)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_command_reads_the_target_and_gets_the_plans_exact_bytes() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let script = r#"case $1 in
            read) echo '{"kind":"slots", "slots":6}' ;;
            *) cat > "$0/$1" ;;
        esac"#;
        let exec = shell(script, folder.path(), LONG);
        assert_eq!(exec.read(&plan()).await.expect("it says one"), DesiredState::Slots { slots: 6 });
        for (aim, verb) in [(Aim::Desired, "apply"), (Aim::Rollback, "rollback"), (Aim::Revert, "rollback")] {
            exec.set(&certified_plan(&plan()), aim, Attempt::FIRST).await.expect("it succeeds");
            let path = folder.path().join(verb);
            assert_eq!(std::fs::read(&path).expect("it was called"), plan().to_bytes());
            std::fs::remove_file(&path).expect("it is there");
        }
    }

    #[tokio::test]
    async fn failures_and_nonsense_are_told_with_their_words() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let failing = shell("echo no such pool >&2; exit 3", folder.path(), LONG);
        match failing.read(&plan()).await {
            Err(ActuatorError::Failed { status, complaint, .. }) => {
                assert_eq!((status.code(), complaint.as_str()), (Some(3), "no such pool"));
            }
            other => panic!("{other:?}"),
        }
        for nonsense in ["six", r#"{"kind":"slots"}"#, r#"{"kind":"slots","slots":6,"of":"x"}"#, ""] {
            let read = shell(&format!("echo '{nonsense}'"), folder.path(), LONG).read(&plan()).await;
            assert!(matches!(read, Err(ActuatorError::NoState { .. })), "{nonsense}: {read:?}");
        }
        let missing = Exec::new("/does/not/exist".to_owned(), Vec::new(), LONG).read(&plan()).await;
        assert!(matches!(missing, Err(ActuatorError::Command { .. })));
    }

    #[tokio::test]
    async fn a_command_that_neither_reads_nor_stops_writing_is_survived() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let deaf = shell("exec <&-; head -c 1000000 /dev/zero; exit 0", folder.path(), LONG);
        deaf.set(&certified_plan(&plan()), Aim::Desired, Attempt::FIRST).await.expect("it succeeds");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let script = r#"sleep 600 & echo $! > "$0/child"; wait"#;
        let hanging = shell(script, folder.path(), Duration::from_millis(500));
        let read = hanging.read(&plan()).await;
        assert!(matches!(read, Err(ActuatorError::Timeout { .. })), "{read:?}");
        let child = std::fs::read_to_string(folder.path().join("child")).expect("it was started");
        let process = Path::new("/proc").join(child.trim());
        // The child's end is seen by whoever adopts it, a moment later.
        let gone = || {
            let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        for _ in 0..1000 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {} is still there", child.trim());
    }
}
