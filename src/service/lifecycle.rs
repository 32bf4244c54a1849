//! When a process should end: a signal, or the end of the process that started it.
//!
//! Invariant: the answer comes once and for all; a second signal ends the process the system's way.

use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
};

/// Set for processes that `quorate dev` starts: they end when their standard input does, so that none is left
/// however their parent ends.
pub const END_WITH_PARENT: &str = "QUORATE_END_WITH_PARENT";

/// Waits for SIGINT, SIGTERM, or, where [`END_WITH_PARENT`] is set, the end of standard input.
pub async fn asked_to_end() {
    let parent_ended = async {
        if std::env::var_os(END_WITH_PARENT).is_none() {
            std::future::pending::<()>().await;
        }
        let mut input = tokio::io::stdin();
        let mut byte = [0];
        while !matches!(input.read(&mut byte).await, Ok(0) | Err(_)) {}
    };
    // Without a handler the system's own ends the process, which is what was asked for as well.
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return parent_ended.await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = parent_ended => {}
    }
}
