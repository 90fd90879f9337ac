//! Peers' texts as they may be shown: in a terminal, a log file or a page.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// A text of a peer, for one line of output: nothing in it moves a cursor, changes a
/// terminal, begins a new line, turns the reading direction or is invisible.
///
/// Line breaks and tabs become spaces, all else of that kind U+FFFD.
pub fn harmless(text: &str) -> Cow<'_, str> {
    match text.chars().all(|c| shown(c) == c) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.chars().map(shown).collect()),
    }
}

/// Shows whatever a value displays as [`harmless`] does.
///
/// ```
/// use carbontube_protocol::Harmless;
///
/// let error = "no such file\u{1b}]0;gotcha\u{7}";
/// assert_eq!(Harmless(error).to_string(), "no such file\u{fffd}]0;gotcha\u{fffd}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Harmless<T>(pub T);

impl<T: fmt::Display> fmt::Display for Harmless<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Writer(f), "{}", self.0)
    }
}

struct Writer<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Writer<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&harmless(text))
    }
}

/// The character to show for another one.
fn shown(c: char) -> char {
    match c {
        '\n' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        // C0, DEL and C1.
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        // Marks, embeddings, overrides and isolates of the reading direction.
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => {
            char::REPLACEMENT_CHARACTER
        }
        // Spaces without width, the isolates among the invisible operators, tags and the
        // byte-order mark. U+200C and U+200D stay: words and emoji are written with them.
        '\u{200b}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => {
            char::REPLACEMENT_CHARACTER
        }
        '\u{00ad}' | '\u{180e}' | '\u{e0000}'..='\u{e007f}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_turns_or_hides_is_replaced() {
        let bad = [
            '\0',
            '\u{7}',
            '\u{8}',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{80}',
            '\u{9b}',
            '\u{9f}',
            '\u{061c}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
            '\u{ad}',
        ];
        for c in bad {
            assert_eq!(harmless(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
        for c in ['\n', '\t', '\u{2028}', '\u{2029}'] {
            assert_eq!(harmless(&format!("a{c}b")), "a b", "{c:?}");
        }
    }

    #[test]
    fn what_people_write_stays() {
        let texts = [
            "",
            "plain",
            "grün, 日本語, עברית, فارسی می‌خواهم",
            "👩‍🚀",
            "\u{fffd}",
        ];
        for text in texts {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text));
            assert_eq!(Harmless(text).to_string(), text);
        }
    }
}
