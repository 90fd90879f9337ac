//! Jobs pass through their phases in order, with the right instructions.

use bytes::Bytes;
use carbontube_protocol::message::JobState;

use super::Watch;
use crate::oracle::{Asked, Event, Execution, Known};
use crate::view::View;

/// A live job's state and phase change only as the table says.
///
/// Several changes may lie between two looks; what the table lists is what may be seen
/// from one step to the next.
pub fn job_states_change_legally(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (id, before) in &watch.before {
        let (Some(before), Some(now)) = (before, watch.jobs.get(id)) else {
            continue;
        };
        let known = view.oracle.job(id);
        let retried = known.is_some_and(|known| known.was_asked(Asked::Retry));
        let asked = |what| known.is_some_and(|known| known.was_asked(what));
        // One that is discarded or cancelled can be followed at once by another of its id.
        let is_gone =
            asked(Asked::Cancel) || before.state == JobState::Failed && asked(Asked::Discard);
        if is_gone && watch.renewed.contains(id) {
            continue;
        }
        let fails = (before.state, now.state);
        let legal = match now.phase.cmp(&before.phase) {
            std::cmp::Ordering::Less => false,
            // A result moves a job on from anywhere but failure.
            std::cmp::Ordering::Greater => before.state != JobState::Failed || retried,
            std::cmp::Ordering::Equal => match fails {
                (JobState::Failed, JobState::Failed) => true,
                (JobState::Failed, _) => retried,
                (_, JobState::Success | JobState::Cancelled) => false,
                _ => true,
            },
        };
        if !legal {
            return Err(format!(
                "job {id} went from {} at phase {} to {} at phase {}",
                before.state, before.phase, now.state, now.phase
            ));
        }
    }
    Ok(())
}

/// A job stands at a phase only when a phase before it was executed successfully.
pub fn no_phase_is_skipped(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for id in watch.before.keys() {
        let Some(known) = view.oracle.job(id) else {
            continue;
        };
        // A job that has ended and left the history may be enqueued anew.
        let reached = match watch.jobs.get(id) {
            Some(seen) => seen.phase,
            None if gone_as(view, id) == Some(JobState::Success) => watch.last_phase + 1,
            None => 0,
        };
        let succeeded = |phase: &u16| {
            let mut all = watch.executions(id, known);
            all.any(|execution| execution.phase == *phase && execution.success().is_some())
        };
        if let Some(skipped) = (0..reached).find(|phase| !succeeded(phase)) {
            return Err(format!(
                "job {id} has come to phase {reached}, and no execution of phase {skipped} has \
                 succeeded"
            ));
        }
    }
    Ok(())
}

fn gone_as(view: &View<'_>, id: &carbontube_protocol::JobId) -> Option<JobState> {
    view.manager.core().and_then(|core| core.past_job(id))
}

/// A phase starts only when one before it has ended well.
pub fn phases_follow_each_other(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (known, execution) in started(watch, view) {
        if execution.phase > 0 && !known.succeeded(execution.phase - 1) {
            return Err(format!(
                "phase {} started as {}, and phase {} has not succeeded",
                execution.phase,
                execution.attempt,
                execution.phase - 1
            ));
        }
    }
    Ok(())
}

/// A phase gets what the phase before it returned: the instructions that the job was
/// enqueued with, and over them what each phase so far has changed.
pub fn instructions_are_the_merge(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (known, execution) in started(watch, view) {
        let fits = match execution.phase {
            0 => known.sent_at.is_none() || execution.given == known.sent,
            phase => known
                .of_phase(phase - 1)
                .filter_map(Execution::success)
                .any(|returned| *returned == execution.given),
        };
        if !fits {
            return Err(format!(
                "phase {} was given {} as {}, which is not what came before it",
                execution.phase,
                shown(&execution.given),
                execution.attempt
            ));
        }
    }
    Ok(())
}

fn shown(bytes: &Bytes) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(120).collect()
}

fn started<'a>(
    watch: &'a Watch,
    view: &'a View<'_>,
) -> impl Iterator<Item = (&'a Known, &'a Execution)> {
    watch.events.iter().filter_map(|(id, event)| {
        let Event::Started(index) = event else {
            return None;
        };
        let known = view.oracle.job(id)?;
        Some((known, known.executions.get(*index)?))
    })
}
