//! `cargo xtask test`: the whole test set, and which parts of it a missing tool leaves out.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::cargo::{self, cargo_step, step};
use crate::tidy;

/// With this set, a missing tool fails the run.
const REQUIRE_ALL: &str = "CARBONTUBE_REQUIRE_ALL";

/// A tool that part of the tests needs.
struct Tool {
    name: &'static str,
    /// What is left out without it.
    part: &'static str,
    /// A command that succeeds where the tool is there.
    probe: &'static [&'static str],
}

const TOOLS: [Tool; 7] = [
    Tool {
        name: "redis-server",
        part: "the Redis store and its loss",
        probe: &["redis-server", "--version"],
    },
    Tool {
        name: "ffmpeg",
        part: "the video pipeline",
        probe: &["ffmpeg", "-version"],
    },
    Tool {
        name: "ffprobe",
        part: "the check of the video pipeline's segments",
        probe: &["ffprobe", "-version"],
    },
    Tool {
        name: "python3 with pyzmq",
        part: "interoperation with libzmq, and the Python client",
        probe: &["python3", "-c", "import zmq"],
    },
    Tool {
        name: "python3 with pytest",
        part: "the Python client's own tests",
        probe: &["python3", "-m", "pytest", "--version"],
    },
    Tool {
        name: "python3 with mypy",
        part: "the Python client's types",
        probe: &["python3", "-m", "mypy", "--version"],
    },
    Tool {
        name: "chromium with chromedriver",
        part: "the web interface in a real browser",
        probe: &["chromedriver", "--version"],
    },
];

/// Runs everything; the closing lines say what was left out.
pub(crate) fn run() -> Result<()> {
    let root = cargo::root();
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !is_there(tool.probe)).collect();
    if !missing.is_empty() && std::env::var_os(REQUIRE_ALL).is_some() {
        let names: Vec<&str> = missing.iter().map(|tool| tool.name).collect();
        bail!("{REQUIRE_ALL} is set and there is no {}", names.join(", "));
    }
    tidy::run(&root, false)?;
    // Tests of one package start the binaries of others, which cargo test alone may not build.
    cargo_step(
        "build",
        &[
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--examples",
        ],
    )?;
    cargo_step(
        "cargo test",
        &["test", "--workspace", "--all-features", "--no-fail-fast"],
    )?;
    let client = root.join("clients/python");
    let has = |name: &str| !missing.iter().any(|tool| tool.name == name);
    // The client's pytest runs are part of the workspace's tests.
    if client.is_dir() && has("python3 with pyzmq") && has("python3 with mypy") {
        let mut mypy = Command::new("python3");
        mypy.args(["-m", "mypy", "--cache-dir=/dev/null", "."])
            .current_dir(&client);
        step("python types", &mut mypy)?;
    }
    for tool in &missing {
        println!("test: left out {}: there is no {}", tool.part, tool.name);
    }
    match missing.len() {
        0 => println!("test: all good, nothing left out"),
        left_out => println!("test: all good, {left_out} parts left out"),
    }
    Ok(())
}

fn is_there(probe: &[&str]) -> bool {
    Command::new(probe[0])
        .args(&probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_that_is_not_there_is_missing() {
        assert!(!is_there(&["carbontube-no-such-tool"]));
        assert!(!is_there(&["false"]));
        assert!(is_there(&["true"]));
    }
}
