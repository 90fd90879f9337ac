//! What goes wrong on the command line, told to people: an error, its causes, a hint,
//! and the code the process exits with.

use std::error::Error;
use std::fmt;

use crate::exit::Exit;

/// An error on its way to a person.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    exit: Exit,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            exit,
        }
    }

    /// A mistake in the command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    /// An error with all its sources as causes.
    pub(crate) fn from_error(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut failure = Failure::new(exit, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Transparent wrappers say what they wrap: once is enough.
            if failure.causes.last().unwrap_or(&failure.message) != &text {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    /// Says first what was to be done; what went wrong becomes its cause.
    pub(crate) fn context(mut self, message: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, cause);
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        if let Some(hint) = hint {
            self.hint = Some(hint.into());
        }
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Writes it to stderr.
    pub(crate) fn report(&self) {
        let style = crate::cli::Style::stderr();
        crate::cli::say::write(self.render(&style).into_bytes());
    }

    pub(crate) fn render(&self, style: &crate::cli::Style) -> String {
        let message = harmless_lines(&self.message);
        let mut text = format!("{} {message}\n", style.bad("error:"));
        for cause in &self.causes {
            let cause = harmless_lines(cause);
            text.push_str(&format!("{} {cause}\n", style.faint("caused by:")));
        }
        if let Some(hint) = &self.hint {
            let hint = harmless_lines(hint);
            text.push_str(&format!("{} {hint}\n", style.good("hint:")));
        }
        text
    }

    /// What a peer may have written begins no line of its own.
    pub(crate) fn in_one_line(mut self) -> Self {
        let one_line = |text: &mut String| *text = carbontube_protocol::harmless(text).into_owned();
        one_line(&mut self.message);
        self.causes.iter_mut().for_each(one_line);
        self
    }
}

/// Lines of our own stay lines; nothing else in them reaches a terminal.
fn harmless_lines(text: &str) -> String {
    let lines = text.split('\n').map(carbontube_protocol::harmless);
    lines.collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The nearest of `known` to what was written, when it is near enough to be meant.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(written.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// "did you mean `x`? the file has: `x`, `y`": what to write instead.
pub(crate) fn suggestion<'a>(
    written: &str,
    owner: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    let all: Vec<&str> = known.clone().into_iter().collect();
    let list = if all.is_empty() {
        format!("{owner} has none")
    } else {
        format!("{owner} has: {}", all.join(", "))
    };
    match nearest(written, known) {
        Some(name) => format!("did you mean `{name}`? {list}"),
        None => list,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_typos_and_leaves_strangers() {
        let known = ["encode-video", "split-video", "command"];
        assert_eq!(nearest("encode-vide", known), Some("encode-video"));
        assert_eq!(nearest("comand", known), Some("command"));
        assert_eq!(nearest("upload", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
