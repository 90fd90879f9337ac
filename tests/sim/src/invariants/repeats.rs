//! A phase that runs again has a reason, and the manager says which.

use std::collections::BTreeSet;

use carbontube_protocol::AttemptId;

use super::Watch;
use crate::network::NodeId;
use crate::oracle::{Asked, Disturbance, Event, Outcome};
use crate::view::View;

/// The manager has counted, with a cause, at least as many executions beyond the needed
/// ones as there were.
///
/// Needed is one of each phase, and one more for each that failed. Whoever asks to try a failed job again asks for what comes of it.
pub fn repeated_executions_have_a_cause(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let mut found = None;
    for (id, event) in &watch.events {
        let Event::Started(index) = event else {
            continue;
        };
        let Some(known) = view.oracle.job(id) else {
            continue;
        };
        let Some(execution) = known.executions.get(*index) else {
            continue;
        };
        let former = watch.former.get(id).copied().unwrap_or_default();
        // One of the former job may even begin after the id is used again.
        let last = watch.former_attempt.get(id);
        let is_former = |attempt: &AttemptId| last.is_some_and(|last| attempt <= last);
        let all = known.executions.iter().enumerate().skip(former);
        let all = all.filter(|(_, other)| !is_former(&other.attempt));
        let of_phase = all
            .take_while(|(other, _)| other <= index)
            .filter(|(_, other)| other.phase == execution.phase);
        let (mut runs, mut failed) = (0u64, 0u64);
        let mut attempts = BTreeSet::new();
        for (number, other) in of_phase {
            // A dispatch that the network gives to a worker's successor at the same address
            // as well is no decision of the manager, which hears of it later; nor is one that
            // arrives when it has been given up.
            if !attempts.insert(other.attempt) || watch.belated.contains(&(id.clone(), number)) {
                continue;
            }
            runs += 1;
            let ended = other.ended.as_ref().map(|(_, outcome)| outcome);
            failed += u64::from(matches!(ended, Some(Outcome::Failure | Outcome::Stopped)));
        }
        let needless = runs.saturating_sub(1 + failed);
        let key = (id.clone(), execution.phase, former);
        let counted = watch.repeats_of.entry(key).or_default();
        if needless > *counted && !known.was_asked(Asked::Retry) {
            watch.repeats += needless - *counted;
            *counted = needless;
            found = Some(format!(
                "phase {} of job {id} started again as {}",
                execution.phase, execution.attempt
            ));
        }
    }
    let (Some(found), Some(core)) = (found, view.manager.core()) else {
        return Ok(());
    };
    let counted: u64 = core.reruns_counted().map(|(_, count)| count).sum();
    if counted < watch.repeats {
        return Err(format!(
            "{found}; executions have been repeated {} times so far, and the manager knows of \
             {counted}",
            watch.repeats
        ));
    }
    Ok(())
}

/// A world in which nothing went wrong but that the manager was killed or suspended repeats
/// nothing, and its manager counts nothing as repeated, as long as messages take a fraction of the worker timeout, and workers can say in time after a
/// restart what they hold.
pub fn nothing_repeats_without_a_disturbance(
    watch: &mut Watch,
    view: &View<'_>,
) -> Result<(), String> {
    let core = view.manager.core();
    let counted = core.map_or(0, |core| {
        core.reruns_counted().map(|(_, count)| count).sum()
    });
    if watch.repeats == 0 && counted == 0 {
        return Ok(());
    }
    let network = &view.parameters.network;
    let heard_by = network.reconnect.1 + network.latency.1 * 4 + HEARTBEATS;
    if heard_by >= view.parameters.core.worker_timeout {
        return Ok(());
    }
    let in_time = heard_by < view.parameters.core.adoption_grace
        && network.publish_loss == 0.0
        && network.connect_failure == 0.0;
    let harmless = |(_, node, how): &(_, NodeId, Disturbance)| {
        let is_own = matches!(
            how,
            Disturbance::Killed | Disturbance::Suspended | Disturbance::Clock
        );
        in_time && *node == NodeId::Manager && is_own || matches!(node, NodeId::Client(_))
    };
    let is_late = || view.network.is_late(view.now, view.parameters.late_after());
    if view.oracle.disturbances().iter().all(harmless) && !is_late() {
        return Err(format!(
            "{} executions were repeated, the manager thinks {counted}, and nothing has happened \
             that explains it",
            watch.repeats
        ));
    }
    Ok(())
}

/// Within which a worker says twice what it holds.
const HEARTBEATS: std::time::Duration = std::time::Duration::from_secs(2);
