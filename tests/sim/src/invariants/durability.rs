//! Durable before visible, and never lost afterwards.

use carbontube_manager::core::Effect;
use carbontube_protocol::JobId;
use carbontube_protocol::message::{EnqueueOutcome, JobState, Message};

use super::Watch;
use crate::oracle::{Asked, Event};
use crate::view::View;

/// What the disk hands out is, byte for byte, what it was given.
pub fn the_disk_serves_what_was_stored(_: &mut Watch, view: &View<'_>) -> Result<(), String> {
    match view.disk.audit() {
        None => Ok(()),
        Some(found) => Err(found),
    }
}

/// A job that somebody was told is in the journal stays known until it can have ended.
///
/// Looked at when somebody is told, when the job leaves the live ones, and for all jobs
/// after each start.
pub fn confirmed_jobs_are_kept(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core() else {
        return Ok(());
    };
    let check = |id: &JobId| {
        let Some(known) = view.oracle.job(id) else {
            return Ok(());
        };
        if !known.is_confirmed() || core.live_job(id).is_some() {
            return Ok(());
        }
        if known.may_be_gone(watch.last_phase) {
            return Ok(());
        }
        Err(format!(
            "job {id} was confirmed and cannot have ended, and the manager does not know it"
        ))
    };
    if view.started {
        for id in view.oracle.jobs().keys() {
            check(id)?;
        }
    }
    for (id, event) in &watch.events {
        if matches!(event, Event::Told(_)) {
            check(id)?;
        }
    }
    for (id, _) in watch
        .before
        .iter()
        .filter(|(id, _)| watch.gone.contains_key(*id))
    {
        check(id)?;
    }
    Ok(())
}

/// No client is told that a job is there, or has ended, before the disk has it.
pub fn answers_wait_for_the_disk(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for effect in view.released {
        let Effect::ToClient { message, .. } = effect else {
            continue;
        };
        match message {
            Message::Enqueued(answer) => {
                for outcome in &answer.outcomes {
                    match outcome {
                        EnqueueOutcome::Accepted { id } => is_durable(watch, view, id, false)?,
                        // Said of a job that has ended, though there may be another by now.
                        EnqueueOutcome::Duplicate { id, state } => {
                            is_durable(watch, view, id, is_over(*state))?;
                        }
                        EnqueueOutcome::Rejected { .. } => {}
                    }
                }
            }
            Message::Ended(answer) => {
                let ended = answer.jobs.iter();
                for ended in ended.filter(|ended| ended.state.is_some_and(is_over)) {
                    is_durable(watch, view, &ended.id, true)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_over(state: JobState) -> bool {
    matches!(state, JobState::Success | JobState::Cancelled)
}

fn is_durable(watch: &Watch, view: &View<'_>, id: &JobId, ended: bool) -> Result<(), String> {
    if view.manager.core().is_none() {
        // It has ended in this step, after its last commit.
        return Ok(());
    }
    let what = match ended {
        true => "is told to have ended",
        false => "is told to be there",
    };
    // What was there when this process started needs nothing. An answer may be older than
    // the latest change: that a job is there needs its first record at least.
    let needed = match ended {
        true => watch.gone.get(id),
        false => watch.first.get(id),
    };
    let needed = needed.copied().unwrap_or_default();
    if needed <= view.synced {
        return Ok(());
    }
    Err(format!(
        "job {id} {what}, which record {} says, and the disk has those up to {}",
        needed.0, view.synced.0
    ))
}

/// No worker may forget a result before the disk has what it decided.
pub fn acknowledgements_wait_for_the_disk(
    watch: &mut Watch,
    view: &View<'_>,
) -> Result<(), String> {
    if view.manager.core().is_none() {
        return Ok(());
    }
    for effect in view.released {
        let Effect::ToPipe { message, .. } = effect else {
            continue;
        };
        let Message::Ack(ack) = message else {
            continue;
        };
        for attempt in &ack.attempts {
            let range = (*attempt, MIN)..=(*attempt, MAX);
            let jobs: Vec<JobId> = watch
                .attempts
                .range(range)
                .map(|(_, id)| id.clone())
                .collect();
            for id in jobs {
                let Some(known) = view.oracle.job(&id) else {
                    continue;
                };
                // One of a former job with this id decides nothing about the present one.
                if watch
                    .former_attempt
                    .get(&id)
                    .is_some_and(|last| attempt <= last)
                {
                    continue;
                }
                let former = watch.former.get(&id).copied().unwrap_or_default();
                let executions = known.executions.get(former..).unwrap_or_default();
                // A worker's successor at its address may have got the attempt as well: which
                // of their results it was is not known here.
                let mut of_attempt = executions.iter().filter(|e| e.attempt == *attempt);
                if of_attempt.clone().any(|e| e.success().is_none()) {
                    continue;
                }
                let execution = of_attempt.next();
                let Some(execution) = execution.filter(|e| e.success().is_some()) else {
                    continue;
                };
                let phase = execution.phase;
                let done = watch.done.get(&id);
                let done = done.and_then(|done| done.get(usize::from(phase))).copied();
                let needed = match watch.jobs.get(&id) {
                    // Another result has decided otherwise; it came first.
                    Some(seen) if seen.state == JobState::Failed => continue,
                    Some(_) if done.is_some() => done.unwrap_or_default(),
                    Some(_) if known.was_asked(Asked::Retry) => continue,
                    None if done.is_some() => done.unwrap_or_default(),
                    Some(seen) => {
                        return Err(format!(
                            "the success of {attempt} at phase {phase} of job {id} is \
                             acknowledged, and the job is {} at phase {}",
                            seen.state, seen.phase
                        ));
                    }
                    None => watch.gone.get(&id).copied().unwrap_or_default(),
                };
                if needed > view.synced {
                    return Err(format!(
                        "the success of {attempt} at phase {phase} of job {id} is acknowledged, \
                         which needs record {}, and the disk has those up to {}",
                        needed.0, view.synced.0
                    ));
                }
                let acknowledged = watch.acknowledged.entry(id).or_default();
                *acknowledged = (*acknowledged).max(phase + 1);
            }
        }
    }
    Ok(())
}

pub(super) const MIN: carbontube_protocol::WorkerId =
    carbontube_protocol::WorkerId::from_bytes([0; 16]);
pub(super) const MAX: carbontube_protocol::WorkerId =
    carbontube_protocol::WorkerId::from_bytes([0xff; 16]);

/// No phase is handed to a worker before the disk has the result of the one before.
pub fn dispatches_wait_for_the_disk(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    if view.manager.core().is_none() {
        return Ok(());
    }
    for effect in view.released {
        let Effect::ToPipe { message, .. } = effect else {
            continue;
        };
        let Message::Dispatch(dispatch) = message else {
            continue;
        };
        for job in &dispatch.jobs {
            let Some(seen) = watch.jobs.get(&job.job) else {
                continue;
            };
            if seen.attempt == Some(job.attempt) && seen.known_by > view.synced {
                return Err(format!(
                    "phase {} of job {} is dispatched as {}, which needs record {}, and the disk \
                     has those up to {}",
                    job.phase, job.job, job.attempt, seen.known_by.0, view.synced.0
                ));
            }
        }
    }
    Ok(())
}

/// After a restart no job stands at a phase whose result was acknowledged, nor before a
/// phase that has already started.
pub fn what_was_acknowledged_survives(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    if !view.started {
        return Ok(());
    }
    for (id, seen) in &watch.jobs {
        let known = view.oracle.job(id);
        // One that has ended may have been enqueued anew.
        if known.is_none_or(|known| known.may_be_gone(watch.last_phase)) {
            continue;
        }
        if let Some(least) = watch.acknowledged.get(id)
            && seen.phase < *least
        {
            return Err(format!(
                "job {id} is at phase {} after a restart, and the result of phase {} was \
                 acknowledged",
                seen.phase,
                least - 1
            ));
        }
        let former = watch.former.get(id).copied().unwrap_or_default();
        let started = known.and_then(|known| known.executions.get(former..));
        let started = started.unwrap_or_default().iter();
        if let Some(most) = started.map(|execution| execution.phase).max()
            && seen.phase < most
        {
            return Err(format!(
                "job {id} is at phase {} after a restart, and phase {most} has started before",
                seen.phase
            ));
        }
    }
    Ok(())
}
