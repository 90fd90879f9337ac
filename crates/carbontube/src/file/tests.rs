//! Pipeline files, good and bad.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;

fn parse(text: &str) -> Result<PipelineFile, FileError> {
    PipelineFile::parse("p.toml", text, Path::new("/pipelines"))
}

const PHASE: &str = "[phase.encode-video]\ncommand = [\"true\"]\n";

fn check(text: &str, expected: Expect) {
    let error = parse(text).expect_err("the file is wrong");
    let mut found = error.to_string();
    if let Some(hint) = &error.hint {
        found.push_str("\nhint: ");
        found.push_str(hint);
    }
    expected.assert_eq(&found);
}

#[test]
fn password_file_starts_from_the_folder_of_the_pipeline_file() {
    for (written, expected) in [
        (
            "redis://tina:@h/3?password_file=secrets/a%40b",
            "redis://tina:@h/3?password_file=/pipelines/secrets/a%40b",
        ),
        (
            "redis://h?password_file=/run/p",
            "redis://h?password_file=/run/p",
        ),
        ("redis://:se?cret@h", "redis://:se?cret@h"),
    ] {
        let text = format!(
            "[[pipeline]]\nname = \"v\"\nphases = [\"encode-video\"]\nstorage = \"{written}\"\n{PHASE}"
        );
        let file = parse(&text).expect("the file is right");
        assert_eq!(file.pipelines[0].storage.as_deref(), Some(expected));
    }
}

#[test]
fn good_file_is_read_whole() {
    let file = parse(
        r#"
        [[pipeline]]
        name = "videos"
        phases = ["encode-video", "split-video"]
        storage = "sled:./journal"

        [phase.encode-video]
        command = ["python3", "encode.py"]
        mode = "stream"
        concurrency = 4
        timeout = "10m"
        attempts = 5
        backoff = "2s..5m"
        env = { QUALITY = "high" }

        [phase.split-video]
        command = ["./split"]
        backoff = "3s"
        "#,
    )
    .expect("the file is right");
    let videos = &file.pipelines[0];
    assert_eq!(videos.storage.as_deref(), Some("sled:/pipelines/journal"));
    let [encode, split] = videos.definition.phases() else {
        panic!("two phases")
    };
    assert_eq!(encode.attempts, 5);
    assert_eq!(encode.timeout, Some(Duration::from_secs(600)));
    assert_eq!(encode.backoff.first, Duration::from_secs(2));
    assert_eq!(encode.backoff.longest, Duration::from_secs(300));
    assert_eq!(split.attempts, 3);
    assert_eq!(split.backoff.longest, Duration::from_secs(3));
    let phase = file
        .phases
        .iter()
        .find(|phase| phase.definition.job_type.as_str() == "encode-video")
        .expect("the phase is there");
    assert_eq!(phase.concurrency, Some(4));
    assert_eq!(phase.env, [("QUALITY".to_owned(), "high".to_owned())]);
    assert_eq!(phase.dir, Path::new("/pipelines"));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    check(
        "[[pipeline]]\nname = \"v\"\nphasse = []\n",
        expect![[r#"
        p.toml:3:1: unknown key "phasse"
        hint: did you mean `phases`? a pipeline has: name, phases, storage"#]],
    );
    check(
        "[phase.a]\ncomand = [\"x\"]\n",
        expect![[r#"
        p.toml:2:1: unknown key "comand"
        hint: did you mean `command`? a phase has: command, mode, env, concurrency, timeout, attempts, backoff"#]],
    );
    check(
        "[pipelines]\n",
        expect![[r#"
        p.toml:1:2: unknown key "pipelines"
        hint: did you mean `pipeline`? a pipeline file has: pipeline, phase"#]],
    );
}

#[test]
fn unknown_phases_are_refused_with_the_nearest() {
    check(
        &format!("[[pipeline]]\nname = \"v\"\nphases = [\"encode-vide\"]\n{PHASE}"),
        expect![[r#"
            p.toml:3:11: there is no [phase.encode-vide]
            hint: did you mean `encode-video`? the file has: encode-video"#]],
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    check(
        "pipeline = 3",
        expect![[r#"
        p.toml:1:12: pipeline is an array of tables, not a whole number
        hint: write [[pipeline]] with two brackets"#]],
    );
    check(
        "",
        expect![[r#"
        p.toml:1:1: the file has no [[pipeline]]
        hint: add [[pipeline]] with a name and its phases, such as phases = ["encode"]"#]],
    );
    check(
        "[phase.a]\ncommand = \"x\"\n",
        expect!["p.toml:2:11: command is a list of texts, not a text"],
    );
    check(
        "[phase.a]\ncommand = []\n",
        expect!["p.toml:2:11: the command is empty"],
    );
    check(
        "[phase.a]\ncommand = [\"x\"]\nattempts = 0\n",
        expect!["p.toml:3:12: attempts is a whole number from 1 to 1000, not 0"],
    );
    check(
        "[phase.a]\ncommand = [\"x\"]\ntimeout = 10\n",
        expect!["p.toml:3:11: timeout is a text in quotes, not a whole number"],
    );
    check(
        "[phase.a]\ncommand = [\"x\"]\ntimeout = \"10 minutes\"\n",
        expect![[
            r#"p.toml:3:11: "10 minutes" is not a duration; write a number with ms, s, m, h or d, such as 10m"#
        ]],
    );
    check(
        "[phase.a]\ncommand = [\"x\"]\nbackoff = \"5m..1s\"\n",
        expect![[
            r#"p.toml:3:11: backoff "5m..1s" ends before it begins; write the shorter one first, such as 1s..5m"#
        ]],
    );
    check(
        "[phase.a]\ncommand = [\"x\"]\nmode = \"steam\"\n",
        expect![[r#"
            p.toml:3:8: mode is "once" or "stream", not "steam"
            hint: did you mean `stream`?"#]],
    );
    check(
        "[phase.a]\ncommand = [\"x\"\n",
        expect!["p.toml:2:15: not TOML: unclosed array, expected `]`"],
    );
    check(
        &format!(
            "[[pipeline]]\nname = \"v\"\nphases = [\"encode-video\"]\nstorage = \"mysql:x\"\n{PHASE}"
        ),
        expect![[
            r#"p.toml:4:11: storage "mysql:x": unknown scheme "mysql"; expected memory:, sled:PATH or redis://[USER:PASSWORD@]HOST[:PORT][/DB]"#
        ]],
    );
}
