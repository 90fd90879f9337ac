//! What people write: pipeline files, durations, addresses, storage URIs, names, ids.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use carbontube::testing::{
    format_duration, parse_duration, parse_option_duration, read_pipeline_file,
};
use carbontube_protocol::{
    Address, AttemptId, JobId, JobType, Limits, ManagerId, PipelineName, WorkerId,
    check_instructions, merge_instructions,
};
use carbontube_storage::StoreUri;

use crate::Target;

/// The target.
pub const TARGET: Target = Target {
    name: "pipeline",
    about: "pipeline files, durations, addresses, storage URIs, names, ids, instructions",
    run,
    seeds,
    dictionary: DICTIONARY,
    bytes_max: 4096,
};

/// The longest error: a fault may quote a line, not the file.
const ERROR_BYTES_MAX: usize = 16 << 10;

/// Reads a text as one of the things that people write; the first byte says which.
pub fn run(data: &[u8]) {
    let Some((way, bytes)) = data.split_first() else {
        return;
    };
    let lossy = String::from_utf8_lossy(bytes);
    let text = &*lossy;
    match way % 8 {
        0..=2 => file(text),
        3 => durations(text),
        4 => {
            if let Some(address) = read_back::<Address>(text) {
                let _ = address.check_connectable();
            }
            if let Ok(address) = text.parse::<Address>() {
                assert!(text.len() <= 300, "{address} is too long");
            }
        }
        5 => uri(text),
        6 => {
            read_back::<PipelineName>(text);
            read_back::<JobType>(text);
            if let Some(id) = read_back::<JobId>(text) {
                assert_eq!(id.to_string(), text, "an id is kept as it was written");
            }
            read_back::<WorkerId>(text);
            read_back::<ManagerId>(text);
            read_back::<AttemptId>(text);
        }
        _ => instructions(bytes),
    }
}

fn file(text: &str) {
    match read_pipeline_file(text) {
        Ok(contents) => {
            assert!(!contents.pipelines.is_empty());
            for (definition, _) in &contents.pipelines {
                assert!(!definition.phases().is_empty() && definition.phases().len() <= 1000);
                for phase in definition.phases() {
                    assert!(phase.attempts >= 1);
                    assert!(phase.backoff.first <= phase.backoff.longest);
                }
            }
            for phase in &contents.phases {
                assert!(!phase.command.is_empty() && !phase.command[0].is_empty());
                assert!(phase.concurrency != Some(0) && phase.attempts >= 1);
                assert!(phase.timeout.is_none_or(|timeout| !timeout.is_zero()));
                for (name, _) in &phase.env {
                    assert!(!name.is_empty() && !name.contains(['=', '\0']));
                }
            }
        }
        Err(error) => {
            assert!(error.starts_with("fuzz.toml:"), "no place: {error}");
            assert!(error.len() <= ERROR_BYTES_MAX.max(2 * text.len()));
        }
    }
}

fn durations(text: &str) {
    for read in [parse_duration(text), parse_option_duration(text)] {
        match read {
            Ok(duration) => {
                // A bare number of seconds reaches further than ten years.
                assert!(duration.as_secs() <= u64::from(u32::MAX));
                assert!(!format_duration(duration).is_empty());
            }
            Err(error) => assert!(error.contains("duration") || error.contains("ten years")),
        }
    }
}

fn uri(text: &str) {
    match text.parse::<StoreUri>() {
        Ok(uri) => {
            let shown = uri.to_string();
            if let StoreUri::Redis(redis) = &uri {
                // What is shown is the same whatever the password is.
                let mut other = redis.clone();
                other.password = None;
                assert_eq!(shown, other.to_string());
                assert_eq!(format!("{redis:?}"), format!("{other:?}"));
            } else {
                assert_eq!(shown.parse::<StoreUri>().ok(), Some(uri));
            }
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.is_empty());
            // The password of a URI that is wrong elsewhere is not for the log.
            if let Some(password) = secret(text) {
                assert!(!shown.contains(password), "{shown:?} tells {password:?}");
            }
        }
    }
}

/// What stands where a password stands in `redis://user:PASSWORD@host`.
fn secret(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("redis://")?;
    let (login, after) = rest.rsplit_once('@')?;
    let (user, password) = login.split_once(':')?;
    // Its text may stand elsewhere too, across what is shown.
    let shown = format!("redis://{user}:***@{after}");
    let told = password.len() >= 8
        && !"redis is not a number address password".contains(password)
        && !shown.contains(password);
    told.then_some(password)
}

fn instructions(bytes: &[u8]) {
    let limits = Limits {
        instructions_bytes_max: 256,
        ..Limits::default()
    };
    let middle = bytes.len() / 2;
    for part in [bytes, &bytes[..middle]] {
        if check_instructions(part, &limits).is_ok() {
            assert!(part.len() <= limits.instructions_bytes_max);
            let value: serde_json::Value =
                serde_json::from_slice(part).expect("instructions that were taken are JSON");
            assert!(value.is_object());
        }
    }
    // Both sides of a merge usually come from a check that they passed.
    let split = bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .unwrap_or(middle);
    let (given, output) = bytes.split_at(split);
    if check_instructions(given, &limits).is_ok() && check_instructions(output, &limits).is_ok() {
        match merge_instructions(given, output, &limits) {
            Ok(merged) => {
                check_instructions(&merged, &limits).expect("a merge is instructions again");
            }
            Err(error) => assert!(error.to_string().contains("limited"), "{error}"),
        }
    }
}

/// Reads a text; what was read is the same when it is written and read again.
fn read_back<T>(text: &str) -> Option<T>
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>();
            assert_eq!(again.ok().as_ref(), Some(&value), "{text:?}");
            Some(value)
        }
        Err(error) => {
            let shown = error.to_string();
            // Escaping makes a character ten bytes at most.
            assert!(!shown.is_empty() && shown.len() <= 10 * text.len() + 400);
            None
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let texts: &[(u8, &str)] = &[
        (0, EXAMPLE),
        (0, "[[pipeline]]\nname = \"a\"\nphases = [\"b\"]\n"),
        (0, "pipeline = 3"),
        (0, "[phase.\"x y\"]\ncommand = []\n"),
        (3, "1h30m"),
        (3, "500ms"),
        (3, "4294967295"),
        (4, "tcp://127.0.0.1:5050"),
        (4, "tcp://*:5050"),
        (4, "tcp://[::1]:0"),
        (4, "ipc:///tmp/x"),
        (5, "memory:"),
        (5, "sled:/var/lib/x"),
        (5, "redis://user:secretword%41@[::1]:6379/3"),
        (5, "redis://:hidden-password@host:x/"),
        (6, "videos"),
        (6, "0af76519-16cd-43dd-8448-eb211c80319c"),
        (6, "3-1042"),
        (7, "{\"a\": 1}\n{\"a\": [1, \"\\u00e4\"], \"b\": null}"),
    ];
    let seed = |(way, text): &(u8, &str)| [&[*way], text.as_bytes()].concat();
    texts.iter().map(seed).collect()
}

const EXAMPLE: &str = r#"
[[pipeline]]
name = "videos"
phases = ["encode-video", "split-video"]
storage = "sled:journal"

[phase.encode-video]
command = ["ffmpeg", "-i"]
mode = "stream"
env = { A = "b" }
concurrency = 0x10
timeout = "1h"
attempts = 5
backoff = "1s..5m"

[phase."split-video"]
command = ["true"]
"#;

const DICTIONARY: &[&[u8]] = &[
    b"[[pipeline]]\n",
    b"[phase.",
    b"name = \"",
    b"phases = [",
    b"storage = ",
    b"command = [\"",
    b"mode = \"once\"",
    b"env = {",
    b"concurrency = ",
    b"timeout = \"",
    b"attempts = ",
    b"backoff = \"1s..",
    b"'''",
    b"\"\"\"",
    b"0x",
    b"1979-05-27T07:32:00Z",
    b"inf",
    b"tcp://",
    b"ipc://",
    b"redis://",
    b"sled:",
    b"%00",
    b"@",
    b"::",
    b"ms",
    b"18446744073709551615",
    b"\\u0000",
];
