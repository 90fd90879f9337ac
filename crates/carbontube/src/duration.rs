//! Durations as people write them: `500ms`, `30s`, `10m`, `1h30m`, `7d`.

use std::time::Duration;

/// Reads a duration; the error says what was expected.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let fault =
        || format!("{text:?} is not a duration; write a number with ms, s, m, h or d, such as 10m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fault());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| fault())?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fault()),
        };
        total = number
            .checked_mul(unit_ms)
            .and_then(|ms| total.checked_add(Duration::from_millis(ms)))
            // Ten years: whoever writes more means something else.
            .filter(|total| total.as_secs() <= 10 * 366 * 86_400)
            .ok_or_else(|| format!("{text:?} is longer than ten years"))?;
        rest = after;
    }
    Ok(total)
}

/// Reads an option's duration; a bare number is seconds, as in the original.
pub(crate) fn parse_option_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(u64::from(seconds))),
        Err(_) => parse_duration(text),
    }
}

/// A duration for people, in at most two units.
pub(crate) fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small:02}{small_unit}"),
    };
    if duration < Duration::from_millis(1) {
        format!("{}us", duration.as_micros())
    } else if duration < Duration::from_secs(1) {
        format!("{}ms", duration.as_millis())
    } else if seconds < 10 && duration.subsec_millis() >= 100 {
        format!("{seconds}.{}s", duration.subsec_millis() / 100)
    } else if seconds < 60 {
        format!("{seconds}s")
    } else if seconds < 3600 {
        two(seconds / 60, "m", seconds % 60, "s")
    } else if seconds < 86_400 {
        two(seconds / 3600, "h", seconds % 3600 / 60, "m")
    } else {
        two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in [
            "",
            "10",
            "m",
            "1.5s",
            "-1s",
            "1 s",
            "10min",
            "1s..5m",
            "99999999999999999999s",
            "20000d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_option_duration("2"), Ok(Duration::from_secs(2)));
    }

    #[test]
    fn durations_are_shown_in_two_units_at_most() {
        for (ms, text) in [
            (0, "0us"),
            (250, "250ms"),
            (1000, "1s"),
            (2540, "2.5s"),
            (59_900, "59s"),
            (600_000, "10m"),
            (605_000, "10m05s"),
            (7_260_000, "2h01m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(ms)), text);
        }
    }
}
