//! When a process should end: a signal, or the end of the process that started it.
//!
//! Invariant: the first request is answered in order and within a bound, the second ends the process at once, and a
//! process whose parent must not outlive it does not outlive its parent.

use std::{
    io::{ErrorKind, Read as _},
    process::exit,
    sync::OnceLock,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Set for processes that `quorate dev` starts: they end when their standard input does, so that none is left
/// however their parent ends.
pub const END_WITH_PARENT: &str = "QUORATE_END_WITH_PARENT";

/// How long a process may take to end once its parent is gone: longer than every bounded ending, of which that of
/// `quorate dev` under a test is the longest.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// The exit code of a process that was ended at once: it failed.
const AT_ONCE: i32 = 1;

/// How often a process was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Not yet.
    Never,
    /// In order, please.
    Once,
    /// At once.
    Twice,
}

/// Counts requests to end from here on: SIGINT, SIGTERM, and, where [`END_WITH_PARENT`] is set, the end of
/// standard input.
#[must_use]
pub fn end_requests() -> watch::Receiver<Asked> {
    let (requests, asked) = watch::channel(Asked::Never);
    let parent = parent_ended();
    // Without a handler the system's own ends the process, which is what was asked for as well.
    let signals = (signal(SignalKind::interrupt()).ok(), signal(SignalKind::terminate()).ok());
    let (mut interrupt, mut terminate) = signals;
    tokio::spawn(async move {
        let by_signal = tokio::select! {
            () = next(&mut interrupt) => true,
            () = next(&mut terminate) => true,
            () = wait_for(parent) => false,
        };
        requests.send_replace(Asked::Once);
        // What ended the parent, such as Ctrl-C at their terminal, mostly reaches this process too: the two together
        // are one request, in whichever order they come.
        for _ in 0..if by_signal { 1 } else { 2 } {
            tokio::select! {
                () = next(&mut interrupt) => {}
                () = next(&mut terminate) => {}
            }
        }
        requests.send_replace(Asked::Twice);
        // Whoever watches is not told that nobody counts any more.
        std::future::pending::<()>().await;
    });
    asked
}

/// Waits for the first request to end. A second one ends the process there and then.
pub async fn asked_to_end() {
    let mut asked = end_requests();
    until(&mut asked, Asked::Once).await;
    tokio::spawn(async move {
        until(&mut asked, Asked::Twice).await;
        exit(AT_ONCE);
    });
}

/// Waits until it was asked so often.
pub async fn until(asked: &mut watch::Receiver<Asked>, times: Asked) {
    if asked.wait_for(|asked| *asked >= times).await.is_err() {
        // The runtime is ending, and everything on it.
        std::future::pending::<()>().await;
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn wait_for(parent: Option<watch::Receiver<bool>>) {
    if let Some(mut parent) = parent
        && parent.wait_for(|ended| *ended).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Begins to watch the parent of this process, where [`END_WITH_PARENT`] says so. From then on the process ends a
/// bounded time after its parent, whatever it is doing.
pub fn parent_ended() -> Option<watch::Receiver<bool>> {
    static PARENT: OnceLock<Option<watch::Receiver<bool>>> = OnceLock::new();
    let watched = PARENT.get_or_init(|| {
        std::env::var_os(END_WITH_PARENT)?;
        let (ended, parent) = watch::channel(false);
        std::thread::spawn(move || {
            let mut bytes = [0; 64];
            loop {
                match std::io::stdin().read(&mut bytes) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            ended.send_replace(true);
            std::thread::sleep(ORPHAN_TIMEOUT);
            exit(AT_ONCE);
        });
        Some(parent)
    });
    watched.clone()
}
