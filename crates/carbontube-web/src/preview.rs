//! Job data for people: bounded, valid text, whatever the bytes are.

use serde::Serialize;
use serde_json::value::RawValue;

/// How many bytes of instructions a page gets at once.
const PREVIEW_BYTES_MAX: usize = 64 << 10;

/// The instructions of a job as a page shows them.
#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    /// How many bytes there are.
    pub(crate) bytes: usize,
    /// The instructions as JSON, when they are short and valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) json: Option<Box<RawValue>>,
    /// Else their beginning as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// Whether there is more than that.
    pub(crate) truncated: bool,
    /// Where the whole is.
    pub(crate) href: String,
}

impl Preview {
    pub(crate) fn of(bytes: &[u8], href: String) -> Preview {
        let truncated = bytes.len() > PREVIEW_BYTES_MAX;
        let json = (!truncated && !bytes.is_empty())
            .then(|| std::str::from_utf8(bytes).ok())
            .flatten()
            .filter(|text| !nests_deeply(text))
            .and_then(|text| serde_json::from_str::<Box<RawValue>>(text).ok());
        let text = json.is_none().then(|| {
            let mut end = bytes.len().min(PREVIEW_BYTES_MAX);
            // Not in the middle of a character.
            while end > 0 && end < bytes.len() && bytes[end] & 0xc0 == 0x80 {
                end -= 1;
            }
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        });
        Preview {
            bytes: bytes.len(),
            json,
            text,
            truncated,
            href,
        }
    }
}

/// Whether brackets stand so deep in each other that a reader may give up on the whole
/// answer.
fn nests_deeply(text: &str) -> bool {
    let mut depth = 0_i32;
    let (mut quoted, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                if depth > 100 {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> serde_json::Value {
        let preview = Preview::of(bytes, "/x".to_owned());
        let text = serde_json::to_string(&preview).expect("it is JSON");
        assert!(text.len() < 7 * PREVIEW_BYTES_MAX);
        serde_json::from_str(&text).expect("it reads back")
    }

    #[test]
    fn short_valid_instructions_are_shown_as_json() {
        let shown = shown(br#"{"a":"</script><script>alert(1)</script>","b":"\u0000\u001b"}"#);
        assert_eq!(shown["json"]["a"], "</script><script>alert(1)</script>");
        assert_eq!(shown["truncated"], false);
    }

    #[test]
    fn invalid_utf8_and_control_characters_become_valid_text() {
        let shown = shown(b"{\"a\":\"\xff\xfe\x00\x1b[2J\"}");
        assert_eq!(shown["text"], "{\"a\":\"\u{fffd}\u{fffd}\u{0}\u{1b}[2J\"}");
        assert!(shown.get("json").is_none());
    }

    #[test]
    fn long_instructions_are_cut_between_characters() {
        let long = format!("{{\"a\":\"{}\"}}", "ä".repeat(8 << 20));
        let shown = shown(long.as_bytes());
        assert_eq!(shown["truncated"], true);
        assert_eq!(shown["bytes"], long.len());
        let text = shown["text"].as_str().expect("text");
        assert!(text.ends_with('ä') && text.len() <= PREVIEW_BYTES_MAX);
    }

    #[test]
    fn deep_nesting_is_shown_as_text() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(shown(deep.as_bytes()).get("json").is_none());
        assert!(shown(br#"{"a":"[[[[\"[[["}"#).get("json").is_some());
    }
}
