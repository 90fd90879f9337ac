//! The W3C trace context that travels with a job.

/// What a traceparent of version 00 is long; later versions may be longer.
const LENGTH: usize = 55;
/// The longest one of any version that is taken.
const LENGTH_MAX: usize = 128;

/// Whether a text is a W3C `traceparent`: `VERSION-TRACE_ID-PARENT_ID-FLAGS` in lower-case
/// hexadecimal digits, neither id all zeros.
pub fn is_traceparent(text: &str) -> bool {
    if !text.is_ascii() || text.len() < LENGTH || text.len() > LENGTH_MAX {
        return false;
    }
    let (known, rest) = text.split_at(LENGTH);
    let parts: Vec<&str> = known.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return false;
    };
    let is_hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let has_id = |part: &str| part.bytes().any(|byte| byte != b'0');
    is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && has_id(trace)
        && is_hex(parent, 16)
        && has_id(parent)
        && is_hex(flags, 2)
        && match version {
            "00" => rest.is_empty(),
            _ => rest.is_empty() || rest.starts_with('-'),
        }
}

#[cfg(test)]
mod tests {
    use super::is_traceparent;

    #[test]
    fn traceparents_are_told_from_other_texts() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(&format!("01{}-more", &good[2..])));
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &format!("{good}-more"),
            &format!("01{}more", &good[2..]),
            &format!("ff{}", &good[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            &format!("01{}-{}", &good[2..], "x".repeat(200)),
            "ä0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        ] {
            assert!(!is_traceparent(bad), "{bad:?}");
        }
    }
}
