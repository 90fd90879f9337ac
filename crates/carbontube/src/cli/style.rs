//! Colours, where a terminal shows them and nobody said no.

use std::io::IsTerminal;

/// How to write to one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { colours: false };

    pub(crate) fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    pub(crate) fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style {
            colours: terminal && !refused && !dumb,
        }
    }

    pub(crate) fn is_coloured(&self) -> bool {
        self.colours
    }

    fn paint(&self, code: &str, text: impl std::fmt::Display) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    pub(crate) fn bad(&self, text: impl std::fmt::Display) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn good(&self, text: impl std::fmt::Display) -> String {
        self.paint("32", text)
    }

    pub(crate) fn odd(&self, text: impl std::fmt::Display) -> String {
        self.paint("33", text)
    }

    pub(crate) fn faint(&self, text: impl std::fmt::Display) -> String {
        self.paint("2", text)
    }

    pub(crate) fn strong(&self, text: impl std::fmt::Display) -> String {
        self.paint("1", text)
    }
}

/// What a peer sent, as it may be shown: see [`carbontube_protocol::harmless`].
pub(crate) fn harmless(text: &str) -> String {
    carbontube_protocol::harmless(text).into_owned()
}
