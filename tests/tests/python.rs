//! Real libzmq peers through pyzmq: the tests of the Python client and of the example
//! worker, against the real binary.

use std::process::{Command, Stdio};

use carbontube_tests::{binary, run_command, workspace};

/// Whether pyzmq and pytest are there; says so when they are not.
fn is_installed() -> bool {
    let found = Command::new("python3")
        .args(["-c", "import zmq, pytest"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(
            std::env::var("CARBONTUBE_REQUIRE_ALL").as_deref() != Ok("1"),
            "python3 with pyzmq and pytest is required here and missing"
        );
        println!("skipped: python3 with pyzmq and pytest is not installed");
    }
    found
}

fn pytest(file: &str, which: &str) {
    if !is_installed() {
        return;
    }
    let mut command = Command::new("python3");
    command
        .args([
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            file,
            "-k",
            which,
        ])
        .current_dir(workspace().join("clients/python"))
        .env("CARBONTUBE_BIN", binary())
        .env("CARBONTUBE_REQUIRE_ALL", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run_command(command).success();
}

#[test]
fn the_python_clients_frames_are_those_of_the_protocol() {
    pytest("tests/test_wire.py", "");
}

#[test]
fn the_python_client_keeps_its_promises_to_a_scripted_manager() {
    pytest("tests/test_client.py", "");
}

#[test]
fn the_example_worker_keeps_the_rules_of_the_protocol() {
    pytest("tests/test_worker.py", "");
}

#[test]
fn python_clients_and_a_real_manager_understand_each_other() {
    pytest("tests/test_manager.py", "not worker");
}

#[test]
fn the_example_worker_and_a_real_manager_understand_each_other() {
    pytest("tests/test_manager.py", "worker");
}
