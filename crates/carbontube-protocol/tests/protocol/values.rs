//! Addresses, names, ids and instructions: what is taken, and what is said of the rest.

use carbontube_protocol::{
    Address, AttemptId, JobId, JobType, Limits, check_instructions, merge_instructions,
};

#[test]
fn addresses_read_and_print() {
    let check = |text: &str, printed: &str| {
        assert_eq!(text.parse::<Address>().expect(text).to_string(), printed);
    };
    check("tcp://127.0.0.1:5050", "tcp://127.0.0.1:5050");
    check("tcp://*:5050", "tcp://*:5050");
    check("tcp://*:*", "tcp://*");
    check("tcp://0.0.0.0", "tcp://0.0.0.0");
    check("tcp://localhost:0", "tcp://localhost");
    check("tcp://[::1]:80", "tcp://[::1]:80");
    check("tcp://[::]", "tcp://[::]");
    check("ipc:///tmp/a.sock", "ipc:///tmp/a.sock");
}

#[test]
fn bad_addresses_say_what_is_wrong() {
    let check = |text: &str, expected: &str| {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("", "does not start with");
    check("foo", "does not start with");
    check("udp://1.2.3.4:5", "udp:// is not supported");
    check("tcp://:5050", "names no host");
    check("tcp://host:70000", "is no port");
    check("tcp://host:+1", "is no port");
    check("tcp://::1:80", "stands in brackets");
    check("tcp://[::1:80", "has no `]`");
    check("tcp://[zz]:80", "is no IPv6 address");
    check("tcp://ho st:80", "cannot have ' '");
    check("ipc://", "needs a path");
    check(&format!("ipc://{}", "x".repeat(108)), "at most 107 bytes");
    check(&"x".repeat(1000), "longer than");
}

#[test]
fn only_a_whole_address_can_be_connected_to() {
    for text in ["tcp://*:1", "tcp://host", "tcp://host:0"] {
        let address: Address = text.parse().expect(text);
        assert!(address.check_connectable().is_err(), "{text}");
    }
    let address: Address = "tcp://host:1".parse().expect("an address");
    assert!(address.check_connectable().is_ok());
}

#[test]
fn a_canonical_uuid_and_a_text_are_told_apart() {
    let canonical = "01937a5e-7c00-7000-8000-000000000001";
    let id = JobId::new(canonical).expect("an id");
    assert_eq!(
        id,
        JobId::from_uuid_bytes(*b"\x01\x93\x7a\x5e\x7c\0\x70\0\x80\0\0\0\0\0\0\x01")
    );
    assert_eq!(id.to_string(), canonical);
    let upper = canonical.to_uppercase();
    let text = JobId::new(&upper).expect("an id");
    assert_ne!(text, id);
    assert_eq!(text.to_string(), upper);
}

#[test]
fn bad_ids_and_names_say_what_is_wrong() {
    let id = |text: &str| JobId::new(text).expect_err("a bad id").to_string();
    assert_eq!(id(""), "an id may not be empty");
    assert!(id("a b").contains("' '"));
    assert!(id(&"x".repeat(129)).contains("129"));
    let name = |text: &str| JobType::new(text).expect_err("a bad name").to_string();
    assert_eq!(name(""), "a job type may not be empty");
    assert!(name("-x").contains("'-'"));
    assert!(name("é").contains("'é'"));
    assert!(name(&"x".repeat(129)).contains("129"));
    assert!("3".parse::<AttemptId>().is_err());
    assert_eq!(
        "3-4".parse::<AttemptId>(),
        Ok(AttemptId {
            epoch: 3,
            counter: 4
        })
    );
}

#[test]
fn instructions_are_an_object_within_the_limit() {
    let limits = Limits {
        instructions_bytes_max: 20,
        ..Limits::default()
    };
    let check = |bytes: &[u8], expected: &str| {
        let error = check_instructions(bytes, &limits)
            .expect_err("bad instructions")
            .to_string();
        assert!(error.contains(expected), "{error}");
    };
    assert_eq!(check_instructions(br#" {"a": 1} "#, &limits), Ok(()));
    check(b"", "not valid JSON");
    check(b"{", "not valid JSON");
    check(b"{} {}", "not valid JSON");
    check(b"{\"a\":\"\xff\"}", "not valid JSON");
    check(b"[1]", "not an array");
    check(b"null", "not null");
    check(b"3", "not a number");
    check(b"{\"a\":\"0123456789012345\"}", "limited to 20 bytes");
}

#[test]
fn merging_replaces_keys_and_keeps_numbers_as_written() {
    let merged = merge_instructions(
        br#"{"a":1,"b":{"c":1}}"#,
        br#"{"b":{"d":2},"n":1.10000000000000000001}"#,
        &Limits::default(),
    );
    let expected = br#"{"a":1,"b":{"d":2},"n":1.10000000000000000001}"#;
    assert_eq!(merged.map(|bytes| bytes.to_vec()), Ok(expected.to_vec()));
}

#[test]
fn deeply_nested_instructions_are_refused_not_followed() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    // Either answer is fine, as long as the stack holds.
    let _ = check_instructions(deep.as_bytes(), &Limits::default());
    assert!(merge_instructions(b"{}", deep.as_bytes(), &Limits::default()).is_ok());
}
