//! What workers get to do.

use super::Watch;
use crate::oracle::Event;
use crate::view::View;

/// An attempt belongs to one job, and starts at most once at a worker.
pub fn attempts_run_once(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (id, event) in &watch.events {
        let Event::Started(index) = event else {
            continue;
        };
        let known = view.oracle.job(id);
        let Some(execution) = known.and_then(|known| known.executions.get(*index)) else {
            continue;
        };
        let (attempt, worker) = (execution.attempt, execution.worker);
        if let Some(other) = watch.attempts.insert((attempt, worker), id.clone()) {
            return Err(format!(
                "attempt {attempt} of job {id} started at {worker} where it was started before, \
                 of job {other}"
            ));
        }
        let mut same = watch.attempts.range((attempt, super::durability::MIN)..);
        if let Some((_, other)) = same.find(|((found, _), _)| *found == attempt)
            && other != id
        {
            return Err(format!(
                "attempt {attempt} is of job {id} and of job {other}"
            ));
        }
    }
    Ok(())
}

/// A worker is sent no more than it has room for.
///
/// What it holds after a restart may be more than the manager would give it now; then
/// nothing is added.
pub fn workers_are_within_credit(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core().filter(|_| watch.acted) else {
        return Ok(());
    };
    let mut held = std::collections::BTreeMap::new();
    for worker in core.known_workers() {
        let before = watch.held.get(&worker.id);
        let sent = worker.attempts.iter().find(|attempt| {
            attempt.attempt.epoch == core.epoch()
                && attempt.reported.is_none()
                && before.is_none_or(|before| !before.contains(&attempt.attempt))
        });
        if let Some(sent) = sent
            && worker.attempts.len() > worker.credit as usize
        {
            return Err(format!(
                "{} is sent to worker {}, which holds {} with it and may hold {}",
                sent.attempt,
                worker.id,
                worker.attempts.len(),
                worker.credit
            ));
        }
        let now = worker.attempts.iter().map(|attempt| attempt.attempt);
        held.insert(worker.id, now.collect());
    }
    watch.held = held;
    Ok(())
}

/// However many workers are invented, few that have shown nothing are in the table.
pub fn newcomers_are_bounded(_watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let most = view.parameters.core.newcomers_max;
    let newcomers = view.manager.core().map_or(0, |core| core.newcomers());
    match newcomers <= most {
        true => Ok(()),
        false => Err(format!(
            "{newcomers} workers in the table have shown nothing, {most} may be there"
        )),
    }
}
