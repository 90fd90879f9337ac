//! `--option=value`, which argh does not know: split before it parses.

use argh_shared::{CommandInfoWithArgs, FlagInfoKind};

/// Splits `--option=value` into two arguments, at the first `=`; values keep theirs.
///
/// What follows `--`, and the value of an option that stands alone before it, is left
/// as it is.
pub(crate) fn split_options(
    arguments: &[String],
    info: &CommandInfoWithArgs<'_>,
) -> Result<Vec<String>, String> {
    let mut flags = info.flags;
    let mut split = Vec::with_capacity(arguments.len());
    let mut in_command = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            split.push(argument.clone());
            split.extend(rest.cloned());
            break;
        }
        if !argument.starts_with("--") {
            if !in_command && let Some(command) = info.commands.iter().find(|c| c.name == argument)
            {
                flags = command.command.flags;
                in_command = true;
            }
            split.push(argument.clone());
            continue;
        }
        let switch = |name: &str| {
            flags
                .iter()
                .find(|flag| flag.long == name)
                .map(|flag| matches!(flag.kind, FlagInfoKind::Switch))
        };
        match argument.split_once('=') {
            Some((name, _)) if switch(name) == Some(true) => {
                return Err(format!("{name} takes no value"));
            }
            Some((name, value)) => split.extend([name.to_owned(), value.to_owned()]),
            None => {
                split.push(argument.clone());
                if switch(argument) == Some(false)
                    && let Some(value) = rest.next()
                {
                    split.push(value.clone());
                }
            }
        }
    }
    Ok(split)
}

#[cfg(test)]
mod tests {
    use argh::ArgsInfo;

    use super::*;

    fn split(arguments: &[&str]) -> Result<Vec<String>, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        split_options(
            &arguments,
            &crate::cli::arguments::Arguments::get_args_info(),
        )
    }

    #[test]
    fn options_are_split_at_their_first_equals_sign() {
        for (given, expected) in [
            (
                &["phase", "f", "p", "--concurrency=4"][..],
                &["phase", "f", "p", "--concurrency", "4"][..],
            ),
            (
                &["phase", "f", "p", "--concurrency", "4"],
                &["phase", "f", "p", "--concurrency", "4"],
            ),
            (
                &["enqueue", "a", "n", "{\"a\": \"b=c\"}"],
                &["enqueue", "a", "n", "{\"a\": \"b=c\"}"],
            ),
            (&["enqueue", "--id=a=b"], &["enqueue", "--id", "a=b"]),
            (&["enqueue", "--id="], &["enqueue", "--id", ""]),
            (
                &["enqueue", "--id", "--wait=x"],
                &["enqueue", "--id", "--wait=x"],
            ),
            (&["enqueue", "--", "--id=x"], &["enqueue", "--", "--id=x"]),
            (
                &["phase", "--push-connect=tcp://h:1", "f", "p"],
                &["phase", "--push-connect", "tcp://h:1", "f", "p"],
            ),
            (
                &["pipeline", "--unknown=3"],
                &["pipeline", "--unknown", "3"],
            ),
        ] {
            assert_eq!(
                split(given).as_deref(),
                Ok(&expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..]),
                "{given:?}"
            );
        }
    }

    #[test]
    fn switches_with_a_value_are_refused() {
        assert_eq!(
            split(&["enqueue", "--wait=yes"]),
            Err("--wait takes no value".to_owned())
        );
    }
}
