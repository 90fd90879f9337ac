//! What clients are told fits together.

use carbontube_protocol::message::JobState;

use super::Watch;
use crate::oracle::{Asked, Event, Known, Told};
use crate::view::View;

/// An answer fits what somebody was told before of the same job.
///
/// Once a job has ended and left the history, its id is free again.
pub fn answers_are_never_contradicted(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (id, event) in &watch.events {
        let Event::Told(index) = event else {
            continue;
        };
        let Some(known) = view.oracle.job(id) else {
            continue;
        };
        let Some((_, told)) = known.told.get(*index) else {
            continue;
        };
        let earlier = &known.told[..*index];
        if let Some(found) = contradiction(known, earlier, told, watch.last_phase) {
            return Err(format!("job {id}: {found}"));
        }
    }
    Ok(())
}

fn contradiction(
    known: &Known,
    earlier: &[(carbontube_protocol::Timestamp, Told)],
    told: &Told,
    last_phase: u16,
) -> Option<String> {
    let may_be_gone = known.may_be_gone(last_phase);
    let was = |wanted: fn(&Told) -> bool| earlier.iter().any(|(_, told)| wanted(told));
    let confirmed = was(|told| matches!(told, Told::Accepted | Told::Duplicate(_)));
    match told {
        Told::Accepted if confirmed && !may_be_gone => {
            Some("it is accepted once more, and cannot have ended".to_owned())
        }
        Told::Ended { state: None, .. } if confirmed && !may_be_gone => {
            Some("it is not known any more, and cannot have ended".to_owned())
        }
        Told::Ended {
            state: Some(JobState::Success),
            ..
        }
        | Told::Duplicate(JobState::Success)
            if !known.succeeded(last_phase) =>
        {
            Some("it is told to have succeeded, and its last phase has not".to_owned())
        }
        Told::Ended {
            state: Some(JobState::Cancelled),
            ..
        }
        | Told::Duplicate(JobState::Cancelled)
            if !known.was_asked(Asked::Cancel) =>
        {
            Some("it is told to be cancelled, and nobody asked for that".to_owned())
        }
        // That a job is live may be heard late: an answer to a batch waits until the batch has
        // all its answers.
        _ => None,
    }
}

/// The result that a client gets is what an execution of the last phase returned, or
/// nothing when it is not kept.
pub fn results_are_those_of_phases(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    for (id, event) in &watch.events {
        let Event::Told(index) = event else {
            continue;
        };
        let Some(known) = view.oracle.job(id) else {
            continue;
        };
        let Some((
            _,
            Told::Ended {
                state: Some(JobState::Success),
                result,
            },
        )) = known.told.get(*index)
        else {
            continue;
        };
        let returned = known.of_phase(watch.last_phase).filter_map(|e| e.success());
        let mut returned = returned;
        if !result.is_empty() && !returned.any(|returned| returned == result) {
            return Err(format!(
                "job {id} is told to have ended with something that no execution returned"
            ));
        }
    }
    Ok(())
}
