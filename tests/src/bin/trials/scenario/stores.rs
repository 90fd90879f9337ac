//! The journal's place: taken twice, lost, full, without power.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use carbontube_tests::{note_group, run_program};

use super::{Figures, PHASES, Size, cluster, judge, order, plan, settle, wait_for};
use crate::cluster::{Cluster, binaries};
use crate::feeder::{feed, joined};

/// A second manager on the same journal refuses, and the first notices nothing.
pub(super) fn two_managers(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let mut cluster = cluster(folder.path(), "", 1, 4)?;
    let count = size.of(500, 2000);
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        vec![order("sleep", 2); count],
        count,
        16,
    );
    let mut arguments: Vec<String> = cluster
        .manager_arguments()
        .into_iter()
        .filter(|argument| !argument.contains("-bind="))
        .collect();
    for kind in ["pull", "sub", "api", "pub"] {
        arguments.push(format!("--{kind}-bind=tcp://127.0.0.1"));
    }
    let second = run_program(folder.path(), &binaries().join("carbontube"), &arguments);
    ensure!(
        second.code.is_some_and(|code| code != 0),
        "the second manager ended with {:?}",
        second.code
    );
    let said = second
        .stderr
        .lines()
        .find(|line| line.starts_with("error"))
        .unwrap_or_default()
        .to_owned();
    ensure!(
        !said.is_empty(),
        "the second manager gave no error: {}",
        second.stderr
    );
    joined(feeder)?;
    settle(&mut cluster)?;
    Ok(judge(&mut cluster, &told)?.saying(format!("the second said {said:?}")))
}

/// Whether there is a redis-server to start.
pub(super) fn has_redis() -> bool {
    let mut probe = Command::new("redis-server");
    probe
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// A Redis server of our own, killed when this is dropped.
struct Redis {
    child: Child,
}

impl Redis {
    fn start(folder: &Path, port: u16) -> Result<Self> {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder)
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting redis-server")?;
        note_group(child.id(), true);
        let redis = Redis { child };
        wait_for("answer of redis-server", || {
            use std::io::{Read, Write};
            let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
                return Ok(false);
            };
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            Ok(stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG")
        })?;
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        note_group(self.child.id(), false);
    }
}

/// Redis is killed and comes back: meanwhile nothing is confirmed, later nothing is missing.
pub(super) fn redis_loss(size: Size) -> Result<Figures> {
    let folder = tempfile::tempdir()?;
    let data = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let redis = Redis::start(data.path(), port)?;
    let mut plan = plan("");
    plan.storage = Some(format!("redis://127.0.0.1:{port}/0"));
    let mut cluster = Cluster::start(folder.path(), &plan)?;
    for phase in PHASES {
        cluster.add_worker(phase, 8);
    }
    let count = size.of(2000, 6000);
    let (told, feeder) = feed(
        cluster.client()?,
        cluster.pipeline(),
        vec![order("sleep", 1); count],
        count,
        16,
    );
    wait_for("first confirmations", || Ok(told.count() > count / 4))?;
    drop(redis);
    // What was durable before the kill may still be on its way to the client.
    std::thread::sleep(Duration::from_millis(300));
    let at_loss = told.count();
    ensure!(at_loss < count, "all were confirmed before Redis was gone");
    std::thread::sleep(Duration::from_secs(size.of(1, 3)));
    let falsely = told.count() - at_loss;
    ensure!(falsely == 0, "{falsely} jobs were confirmed without Redis");
    let _redis = Redis::start(data.path(), port)?;
    joined(feeder)?;
    settle(&mut cluster)?;
    ensure!(cluster.manager().is_running(), "the manager ended");
    Ok(judge(&mut cluster, &told)?.saying(format!("Redis was lost after {at_loss} confirmations")))
}

/// The store's own trial on a small file system that fills up.
pub(super) fn full_disk(size: Size) -> Result<Figures> {
    storage_trial("full-disk", size.of("1", "4"))
}

/// The store's own trial with a file system that is copied as a power cut leaves it.
pub(super) fn power_cut(size: Size) -> Result<Figures> {
    storage_trial("power-cut", size.of("4", "18"))
}

fn storage_trial(name: &str, times: &str) -> Result<Figures> {
    let output = Command::new(binaries().join("examples/trials"))
        .args([name, times])
        .stderr(Stdio::inherit())
        .output()
        .context("starting the storage trials")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "the trial ended with {}:\n{text}",
        output.status
    );
    Ok(Figures::default().saying(text.lines().last().unwrap_or_default()))
}
