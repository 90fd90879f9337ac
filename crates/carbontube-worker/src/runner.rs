//! Runs async phases and commands: one long-lived task for each slot.

use std::sync::Arc;

use futures_lite::future;

use crate::context::{JobContext, Stop};
use crate::emergency::OnExecutor;
use crate::panics::Caught;
use crate::phase::{AnyPhase, Ended, Erased};
use crate::shared::{Shared, stopped_failure};

/// Attempts that a runner may finish in a row before it lets others on its thread.
const IN_A_ROW_MAX: u32 = 64;

/// Takes attempts and runs them, until the worker ends.
pub(crate) async fn run(shared: Arc<Shared>, phase: AnyPhase) {
    let mut last = None;
    let mut in_a_row = 0;
    loop {
        let run = match shared.next(last.take()) {
            Some(run) => run,
            None => match shared.wait_next().await {
                Some(run) => run,
                None => return,
            },
        };
        let ended = execute(&phase, &run.context, &run.instructions).await;
        if ended.as_ref().is_err_and(|failure| failure.terminated) && shared.drains_soon().await {
            run.context.stop(Stop::GraceOver);
        }
        last = Some((run.key, shared.finished(&run, ended)));
        in_a_row += 1;
        if in_a_row == IN_A_ROW_MAX {
            in_a_row = 0;
            future::yield_now().await;
        }
    }
}

async fn execute(phase: &AnyPhase, job: &JobContext, instructions: &bytes::Bytes) -> Ended {
    match &phase.0 {
        Erased::Async(phase) => {
            let work = async {
                let begun = {
                    let _mark = OnExecutor::mark();
                    crate::panics::caught(job, || phase.execute(job, instructions))?
                };
                Caught::new(job, begun).await
            };
            // The phase is polled first: one that never waits costs no listener.
            let stopped = async { Err(stopped_failure(job, job.stopped().await)) };
            future::or(work, stopped).await
        }
        // A command is not dropped but told: its processes must end before its slot is free.
        Erased::Command(phase) => phase.execute(job, instructions).await,
        Erased::Blocking(_) => unreachable!("blocking phases run on threads of their own"),
    }
}
