//! Runs blocking phases: one thread for each slot.

use std::sync::Arc;
use std::thread;

use futures_lite::future::block_on;

use crate::options::StartError;
use crate::panics::caught;
use crate::phase::ErasedBlocking;
use crate::shared::Shared;

/// Starts the threads.
pub(crate) fn start(
    shared: &Arc<Shared>,
    phase: &Arc<dyn ErasedBlocking>,
    slots: u32,
) -> Result<(), StartError> {
    for slot in 0..slots {
        let (shared, phase) = (shared.clone(), phase.clone());
        thread::Builder::new()
            .name(format!("phase-{slot}"))
            .spawn(move || run(&shared, phase.as_ref()))
            .map_err(|source| StartError::Thread { source })?;
    }
    Ok(())
}

fn run(shared: &Shared, phase: &dyn ErasedBlocking) {
    let mut last = None;
    loop {
        let run = match shared.next(last.take()) {
            Some(run) => run,
            None => match block_on(shared.wait_next()) {
                Some(run) => run,
                None => return,
            },
        };
        let ended = caught(&run.context, || {
            phase.execute(&run.context, &run.instructions)
        })
        .and_then(|ended| ended);
        last = Some((run.key, shared.finished(&run, ended)));
    }
}
