//! The journal says the same as the manager, and is no longer than it must be.

use std::collections::BTreeMap;

use carbontube_manager::core::{Core, Recovery};
use carbontube_manager::testing::JobSnapshot;
use carbontube_protocol::message::JobState;
use carbontube_protocol::{JobId, ManagerId, Timestamp};
use carbontube_storage::{Bounds, Log};

use super::Watch;
use super::watch::is_at_rest;
use crate::view::View;

/// After how many pages the records about no job are written again.
const STATE_PAGES: u64 = 64;

/// A manager that starts from what the disk has now knows what the running one knows.
pub fn replay_gives_the_live_state(_: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core().filter(|_| is_at_rest(view)) else {
        return Ok(());
    };
    let replayed = replay(view)?;
    let mut there: BTreeMap<&JobId, JobSnapshot<'_>> =
        replayed.live_jobs().map(|job| (job.id, job)).collect();
    for live in core.live_jobs() {
        let Some(stored) = there.remove(live.id) else {
            return Err(format!("job {} is live, and not in the journal", live.id));
        };
        if let Some((what, live_says, stored_says)) = difference(view, &live, &stored) {
            return Err(format!(
                "job {} has {what} {live_says} in the manager and {stored_says} in the journal",
                live.id
            ));
        }
    }
    if let Some((id, _)) = there.pop_first() {
        return Err(format!("job {id} is in the journal, and not live"));
    }
    for (id, state) in core.past_jobs() {
        match replayed.past_job(id) {
            Some(found) if found == state => {}
            found => {
                return Err(format!(
                    "job {id} is remembered as {state}, and the journal says {found:?}"
                ));
            }
        }
    }
    for (cause, count) in core.reruns_counted() {
        let stored: u64 = replayed
            .reruns_counted()
            .filter(|(found, _)| *found == cause)
            .map(|(_, count)| count)
            .sum();
        if stored < count {
            return Err(format!(
                "{count} executions were repeated because of {cause}, the journal says {stored}"
            ));
        }
    }
    Ok(())
}

fn difference(
    view: &View<'_>,
    live: &JobSnapshot<'_>,
    stored: &JobSnapshot<'_>,
) -> Option<(&'static str, String, String)> {
    let differ = |what, live: &dyn std::fmt::Debug, stored: &dyn std::fmt::Debug| {
        Some((what, format!("{live:?}"), format!("{stored:?}")))
    };
    // A dispatch is not journaled, nor is the end of a pause.
    let now = view.manager.clock(view.now);
    let due = stored.state == JobState::Scheduled && stored.until.is_some_and(|at| at <= now);
    let same = match (live.state, stored.state) {
        (JobState::Enqueued | JobState::Running, JobState::Enqueued) => true,
        (JobState::Enqueued | JobState::Running, JobState::Scheduled) => due,
        (live, stored) => live == stored,
    };
    if !same {
        return differ("state", &live.state, &stored.state);
    }
    if live.phase != stored.phase {
        return differ("phase", &live.phase, &stored.phase);
    }
    if (live.tries, live.losses) != (stored.tries, stored.losses) {
        return differ(
            "tries and losses",
            &(live.tries, live.losses),
            &(stored.tries, stored.losses),
        );
    }
    // Who was scheduled takes a new place when its time has come, which is not journaled.
    if live.ticket != stored.ticket && stored.state == JobState::Enqueued {
        return differ("ticket", &live.ticket, &stored.ticket);
    }
    if live.enqueued_at != stored.enqueued_at {
        return differ("arrival", &live.enqueued_at, &stored.enqueued_at);
    }
    if live.home != stored.home {
        return differ("home", &live.home, &stored.home);
    }
    None
}

fn replay(view: &View<'_>) -> Result<Core, String> {
    let mut recovery = Recovery::new(
        view.parameters.definition.clone(),
        view.parameters.core.clone(),
    );
    for log in Log::ALL {
        for (seq, page) in view.disk.pages(log)? {
            let taken = match log {
                Log::Journal => recovery.journal_page(seq, &page),
                Log::History => recovery.history_page(seq, &page),
            };
            taken.map_err(|error| error.to_string())?;
        }
    }
    // At a time before all others no pause is over: what is scheduled stays so.
    recovery
        .finish(Timestamp::ZERO, ManagerId::from_bytes([1; 16]), 1)
        .map_err(|error| error.to_string())
}

/// The journal holds the pages of live jobs, and not many more.
pub fn pages_follow_live_jobs(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core().filter(|_| is_at_rest(view)) else {
        return Ok(());
    };
    let Some(bounds) = view.disk.journal_bounds() else {
        return Ok(());
    };
    let homes = core.live_jobs().map(|job| job.home.0);
    let oldest = homes.min().unwrap_or(bounds.next);
    if oldest < bounds.first {
        return Err(format!(
            "a live job stands in page {oldest}, and the journal begins with page {}",
            bounds.first
        ));
    }
    let needless = Bounds {
        first: bounds.first,
        next: oldest,
    };
    // What is about no job is written again after so many pages, and so many of its bytes.
    let state_pages = STATE_PAGES + 8 * core.journal_state_bytes() / RECORD_BYTES_MIN;
    let most = 2 * (state_pages + watch.pages_of_a_commit_max);
    if needless.pages() > most {
        return Err(format!(
            "{} pages from {} on stand before page {oldest} of the oldest live job, the most is \
             {most}",
            needless.pages(),
            bounds.first
        ));
    }
    let (_, held, live) = core.journal_use();
    let options = &view.parameters.core;
    let page_bytes = options.page_bytes.max(1 << 10) as u64;
    let least = options
        .journal_garbage_bytes_min
        .max(live * u64::from(options.journal_garbage_ratio.max(2)));
    if held > least + (most + 1) * page_bytes + LATE_BYTES {
        return Err(format!(
            "pages of {held} bytes are held for {live} bytes of live jobs"
        ));
    }
    Ok(())
}

/// The smallest record; a commit of one takes a page.
const RECORD_BYTES_MIN: u64 = 24;

/// What may come while old records are read back to be written again.
const LATE_BYTES: u64 = 256 << 10;

/// The history holds no more ended jobs than it is set to, beyond what its last pages have.
pub fn history_is_bounded(watch: &mut Watch, view: &View<'_>) -> Result<(), String> {
    let Some(core) = view.manager.core().filter(|_| watch.acted) else {
        return Ok(());
    };
    match core.history_overdue() {
        0 => Ok(()),
        over => Err(format!(
            "{over} ended jobs are kept beyond {}, and their pages could have gone",
            view.parameters.core.history_jobs_max
        )),
    }
}
