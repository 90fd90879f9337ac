//! What holds once faults have stopped and time has passed.

use carbontube_protocol::message::JobState;

use super::Watch;
use crate::view::View;

/// Every confirmed job has ended, or has failed and waits for somebody to decide.
pub fn jobs_end(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core() else {
        return Err("the manager is not running".to_owned());
    };
    for (id, known) in view.oracle.jobs() {
        if !known.is_confirmed() {
            continue;
        }
        match core.live_job(id) {
            Some(job) if job.state != JobState::Failed => {
                return Err(format!("job {id} is {} at phase {}", job.state, job.phase));
            }
            None if !known.may_be_gone(watch.last_phase) => {
                return Err(format!("job {id} is not known, and cannot have ended"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The manager waits for nothing: no job is ready, scheduled or running.
pub fn queues_are_empty(_: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core() else {
        return Ok(());
    };
    let left = core.live_jobs().find(|job| job.state != JobState::Failed);
    match left {
        Some(job) => Err(format!("job {} is {} yet", job.id, job.state)),
        None => Ok(()),
    }
}

/// No worker executes or keeps anything.
pub fn workers_are_idle(_: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (number, worker) in view.workers.iter().enumerate() {
        let load = worker.session().map(|session| session.load());
        if let Some(load) = load.filter(|load| load.queued + load.running + load.done > 0) {
            return Err(format!("worker {number} keeps something: {load:?}"));
        }
    }
    let Some(core) = view.manager.core() else {
        return Ok(());
    };
    for worker in core.known_workers() {
        if let Some(held) = worker.attempts.first().filter(|_| !worker.lost) {
            return Err(format!(
                "the manager counts {} with worker {}",
                held.attempt, worker.id
            ));
        }
    }
    Ok(())
}
