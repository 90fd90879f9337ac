//! What is told of a job wherever one is shown.

use std::time::Duration;

use carbontube_protocol::Timestamp;
use carbontube_protocol::message::{JobState, JobView};

/// Which attempt of its phase a job is at, or ended with; the manager counts those that
/// failed.
pub(super) fn attempt_of(job: &JobView) -> u32 {
    let is_next = matches!(
        job.state,
        JobState::Enqueued | JobState::Scheduled | JobState::Success
    );
    (job.attempt + u32::from(is_next)).max(1)
}

/// A reason whose time, seconds since 1970 for the manager, is told as the time until then.
pub(super) fn soon(reason: &str, now: Timestamp, told: fn(Duration) -> String) -> String {
    let rest = reason.strip_prefix("waits until ").and_then(|rest| {
        let end = rest.find([' ', ','])?;
        let until = rest[..end].parse::<f64>().ok()? * 1e6 - now.as_micros() as f64;
        let left = Duration::from_secs_f64((until / 1e6).clamp(0.0, 1e9));
        Some(format!("waits {} more{}", told(left), &rest[end..]))
    });
    rest.unwrap_or_else(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_with_a_time_tells_how_long_it_is() {
        let now = Timestamp(1_700_000_000_000_000);
        let told = |reason| soon(reason, now, |left| format!("{}s", left.as_secs()));
        for (reason, expected) in [
            (
                "waits until 1700000007.500000 for try 2 of cut",
                "waits 7s more for try 2 of cut",
            ),
            (
                "waits until 1699999999.000000, as it was",
                "waits 0s more, as it was",
            ),
            (
                "waits until 99999999999999999999.0 for",
                "waits 1000000000s more for",
            ),
            ("waits until then", "waits until then"),
            ("waits until soon, says who", "waits until soon, says who"),
            ("phase cut is paused", "phase cut is paused"),
        ] {
            assert_eq!(told(reason), expected);
        }
    }
}
