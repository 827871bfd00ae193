//! Ctrl-C: commands that write finish what they hold and leave complete files only. A second one ends at once.

use crate::call;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for Ctrl-C (and SIGTERM).
pub fn watch() {
    let handler = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    // Without a handler Ctrl-C still ends the program; only the tidy end is lost.
    let _ = ctrlc::set_handler(handler);
}

/// Whether Ctrl-C was pressed in the program.
pub fn was_pressed() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Break once Ctrl-C was pressed, or the caller of the command said so.
pub fn flow() -> ControlFlow<()> {
    if call::is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// An error once Ctrl-C was pressed: files that are not finished disappear.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(flow().is_continue(), "interrupted: nothing was written");
    Ok(())
}

/// The same for a job whose parts stay.
pub fn check_job() -> anyhow::Result<()> {
    anyhow::ensure!(
        flow().is_continue(),
        "interrupted: the units that are done stay, and the same command does the others"
    );
    Ok(())
}
