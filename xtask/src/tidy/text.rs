//! Rules about one file's text.

use super::Problem;

/// The most lines of a Rust file that gives no reason for its length.
const LINES_MAX: usize = 800;

/// Marks that nothing finished holds; in two parts, or this file would hold them.
const MARKS: [(&str, &str); 5] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("db", "g!("),
    ("#[ig", "nore"),
    ("unimple", "mented!("),
];

/// Words that only mean something where the code was written.
const PLACES: [(&str, &str); 6] = [
    ("/wo", "rk/"),
    ("/ho", "me/"),
    ("/Us", "ers/"),
    ("/tmp/BR", "IEF"),
    ("hel", "per session"),
    ("registry ", "mirror"),
];

/// File names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// Checks one file.
pub(super) fn check(path: &str, source: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_rust = path.ends_with(".rs");
    let is_python = path.ends_with(".py");
    if is_rust || is_python {
        problems.extend(name(path));
        problems.extend(marks(path, source));
    }
    if path.starts_with("crates/") && path.ends_with("/src/lib.rs") {
        problems.extend(prints(path, source));
    }
    if is_rust {
        problems.extend(purpose(path, source));
        problems.extend(length(path, source));
        if path.starts_with("crates/carbontube-manager/src/core") {
            problems.extend(pure(path, source));
        }
    }
    problems.extend(places(path, source));
    problems
}

fn purpose(path: &str, source: &str) -> Option<Problem> {
    let first = source.lines().find(|line| !line.trim().is_empty());
    let says = first.is_some_and(|line| line.starts_with("//!") && line.len() > 8);
    (!says).then(|| Problem::new(path, Some(1), "does not start with //! and its purpose"))
}

/// What a library prints may fail, panic or wait for ever, in a process that must go on.
fn prints(path: &str, source: &str) -> Option<Problem> {
    let denied = source.contains("#![deny(clippy::print_stdout, clippy::print_stderr)]");
    (!denied).then(|| {
        let text = "has no #![deny(clippy::print_stdout, clippy::print_stderr)]";
        Problem::new(path, Some(1), text)
    })
}

fn length(path: &str, source: &str) -> Option<Problem> {
    let lines = source.lines().count();
    let reason = source
        .lines()
        .next()
        .is_some_and(|line| line.contains("long because"));
    (lines > LINES_MAX && !reason).then(|| {
        let text = format!(
            "has {lines} lines, {LINES_MAX} is the most: split it, or say \"long because …\" on line 1"
        );
        Problem::new(path, None, text)
    })
}

fn name(path: &str) -> Option<Problem> {
    path.split(['/', '.'])
        .find(|part| EMPTY_NAMES.contains(part))
        .map(|part| {
            Problem::new(
                path,
                None,
                format!("{part} says nothing: name what is inside"),
            )
        })
}

fn marks(path: &str, source: &str) -> Vec<Problem> {
    let found = find(source, &MARKS);
    found
        .into_iter()
        .map(|(line, mark)| Problem::new(path, Some(line), format!("{mark} is unfinished work")))
        .collect()
}

fn places(path: &str, source: &str) -> Vec<Problem> {
    let found = find(source, &PLACES);
    found
        .into_iter()
        .map(|(line, word)| {
            let text = format!("{word} means something on one machine only");
            Problem::new(path, Some(line), text)
        })
        .collect()
}

fn find(source: &str, words: &[(&str, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in source.lines().enumerate() {
        for (left, right) in words {
            let word = format!("{left}{right}");
            if line.contains(&word) {
                found.push((index + 1, word));
            }
        }
    }
    found
}

/// The manager's core does no I/O and has no clock, thread or chance of its own.
fn pure(path: &str, source: &str) -> Vec<Problem> {
    let banned = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "Instant",
        "SystemTime",
        "async_std",
        "async_channel",
        "async_io",
        "carbontube_transport",
        "async fn",
    ];
    let mut problems = Vec::new();
    for (index, line) in source.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.contains("cfg(test)") {
            break;
        }
        for word in banned {
            if line.contains(word) {
                let text = format!("the core is pure: {word} has no place in it");
                problems.push(Problem::new(path, Some(index + 1), text));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &str, source: &str) -> Vec<String> {
        check(path, source)
            .into_iter()
            .map(|problem| match problem.line {
                Some(line) => format!("{line}: {}", problem.text),
                None => problem.text,
            })
            .collect()
    }

    #[test]
    fn good_file_has_no_problem() {
        let source = "//! Counts sheep.\n\npub fn sheep() {}\n";
        assert_eq!(texts("crates/sheep/src/sheep.rs", source), [""; 0]);
    }

    #[test]
    fn library_that_may_print_is_found() {
        let source = "//! Counts sheep.\n";
        assert_eq!(texts("crates/sheep/src/lib.rs", source).len(), 1);
        let denied = "#![deny(clippy::print_stdout, clippy::print_stderr)]";
        let source = format!("{source}{denied}\n");
        assert_eq!(texts("crates/sheep/src/lib.rs", &source), [""; 0]);
    }

    #[test]
    fn file_without_purpose_is_found() {
        let found = texts("src/sheep.rs", "use std::io;\n");
        assert_eq!(found, ["1: does not start with //! and its purpose"]);
        assert_eq!(texts("src/sheep.rs", "").len(), 1);
        assert_eq!(texts("src/sheep.rs", "//! x\n").len(), 1);
    }

    #[test]
    fn long_file_needs_a_reason_on_its_first_line() {
        let body = "\n".repeat(LINES_MAX + 1);
        assert_eq!(texts("a.rs", &format!("//! Sheep.{body}")).len(), 1);
        let reasoned = format!("//! Sheep; long because a table is.{body}");
        assert_eq!(texts("a.rs", &reasoned), [""; 0]);
    }

    #[test]
    fn unfinished_marks_are_found_with_their_line() {
        for (left, right) in MARKS {
            let source = format!("//! Sheep.\n\n// {left}{right}\n");
            let found = texts("a.rs", &source);
            assert_eq!(found, [format!("3: {left}{right} is unfinished work")]);
        }
    }

    #[test]
    fn machine_paths_are_found_in_any_file() {
        for (left, right) in PLACES {
            let found = texts("docs/a.md", &format!("See {left}{right}x.\n"));
            assert_eq!(found.len(), 1, "{left}{right}");
        }
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(texts("src/utils.rs", "//! Sheep.\n").len(), 1);
        assert_eq!(texts("src/common/sheep.rs", "//! Sheep.\n").len(), 1);
        assert_eq!(texts("src/commonly.rs", "//! Sheep.\n"), [""; 0]);
    }

    #[test]
    fn core_may_not_read_the_clock_but_its_comments_may_name_it() {
        let path = "crates/carbontube-manager/src/core/ready.rs";
        let source = "//! Sheep.\n// No Instant here.\nuse std::time::Instant;\n";
        assert_eq!(texts(path, source).len(), 1);
        assert_eq!(texts("crates/other/src/ready.rs", source), [""; 0]);
    }
}
