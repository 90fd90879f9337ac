//! Journals that an earlier version left, and the check that this one can go on with them.
//!
//! [`make`] is run once with the binary of each version that writes a new record format;
//! what it made is committed under `tests/fixtures`. [`go_on`] opens a copy with the
//! present binary, compares every job with what the old one said of it, and runs the live
//! ones to their end. See `tests/fixtures/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use async_std::task::block_on;
use carbontube_transport::{Message, Options, Push};
use serde_json::{Value, json};

use crate::{Finished, Process, Signal, run_program, workspace};

/// The pipeline of every fixture. A job's instructions say which phase does what with it.
const FILE: &str = r#"[[pipeline]]
name = "upgrade"
phases = ["cut", "grade", "pack"]

[phase.cut]
command = ["/bin/sh", "-c", '''
given=$(cat)
case "$given" in
*'"cut":"fail"'*) echo "the reel is torn" >&2; exit 3;;
*'"cut":"fail until go"'*) test -e go || { echo "no go yet" >&2; exit 4; };;
*'"cut":"wait for go"'*) touch started; while ! test -e go; do sleep 0.05; done;;
esac
echo '{"cut_done": true}'
''']
concurrency = 4
attempts = 2
backoff = "3s..3s"

[phase.grade]
command = ["/bin/sh", "-c", '''
given=$(cat)
case "$given" in
*'"grade":"fail"'*) echo "no colours" >&2; exit 5;;
esac
echo '{"graded": true}'
''']
attempts = 9
backoff = "30d..30d"

[phase.pack]
command = ["/bin/sh", "-c", "cat >/dev/null; echo '{\"packed\": true}'"]
"#;

/// The phases, in order.
const PHASES: [&str; 3] = ["cut", "grade", "pack"];

/// Larger than a page of the journal, so that its record is in pieces.
const LARGE_BYTES: usize = 61 << 10;

/// A manager and its workers, in a folder with the pipeline file.
struct Site<'a> {
    folder: &'a Path,
    program: &'a Path,
    manager: Process,
    workers: Vec<Process>,
}

impl<'a> Site<'a> {
    fn open(folder: &'a Path, program: &'a Path) -> Self {
        let arguments = [
            "pipeline",
            "pipeline.toml",
            "upgrade",
            "--pull-bind=tcp://127.0.0.1",
            "--storage=sled:journal",
            // Nobody holds anything when a fixture is opened, and nobody shall wait for that.
            "--adoption-grace=100ms",
        ];
        Site {
            folder,
            program,
            manager: Process::start_program(folder, program, &arguments),
            workers: Vec::new(),
        }
    }

    fn add_workers(&mut self) {
        for phase in PHASES {
            let arguments = [
                "phase".to_owned(),
                "pipeline.toml".to_owned(),
                phase.to_owned(),
                "--pull-bind=tcp://127.0.0.1".to_owned(),
                format!("--push-connect={}", self.manager.address("pull")),
                format!("--pub-connect={}", self.manager.address("sub")),
            ];
            let worker = Process::start_program(self.folder, self.program, &arguments);
            self.workers.push(worker);
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        let api = self.manager.address("api");
        let mut all = arguments.to_vec();
        all.extend(["--api", &api]);
        finished(run_program(self.folder, self.program, &all))
    }

    fn enqueue(&self, instructions: &Value, options: &[&str]) -> Result<String> {
        let (api, instructions) = (self.manager.address("api"), instructions.to_string());
        let mut arguments = vec!["enqueue", "--json", &*api, "upgrade", &*instructions];
        arguments.extend(options);
        let finished = finished(run_program(self.folder, self.program, &arguments))?;
        let line = finished.stdout.lines().next().unwrap_or_default();
        let told: Value = serde_json::from_str(line)?;
        let id = told["id"].as_str().context("a confirmed job has no id")?;
        Ok(id.to_owned())
    }

    fn job(&self, id: &str) -> Result<Value> {
        Ok(self.ask(&["job", id, "--json"])?.json())
    }

    fn jobs(&self) -> Result<Vec<Value>> {
        let listed = self.ask(&["jobs", "--limit", "1000", "--json"])?;
        let lines = listed.stdout.lines();
        Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    fn stats(&self) -> Result<Value> {
        Ok(self.ask(&["stats", "--json"])?.json())
    }

    fn wait_for(&self, id: &str, state: &str, phase: &str) -> Result<()> {
        let mut last = Value::Null;
        wait(&format!("{state} at {phase} of job {id}"), || {
            last = self.job(id)?;
            Ok(last["view"]["state"] == state && last["view"]["job_type"] == phase)
        })
        .with_context(|| format!("it is {last}"))
    }

    fn kill(&mut self) {
        self.manager.kill();
        self.workers.iter_mut().for_each(Process::kill);
        self.workers.clear();
    }
}

fn finished(finished: Finished) -> Result<Finished> {
    ensure!(
        finished.code == Some(0),
        "exit code {:?}: {}",
        finished.code,
        finished.stderr
    );
    Ok(finished)
}

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        ensure!(
            started.elapsed() < crate::DEADLINE,
            "no {what} within {:?}",
            crate::DEADLINE
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Makes a fixture in `fixture`, which must not be there yet, with the given `carbontube`:
/// `journal/` as a killed manager left it, an earlier `export`, `jobs.jsonl` with what it said of
/// each job, and `pipeline.toml`.
///
/// # Errors
/// When the old binary does not do what is expected of it.
pub fn make(program: &Path, fixture: &Path) -> Result<()> {
    ensure!(!fixture.exists(), "{} is there already", fixture.display());
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::write(folder.join("pipeline.toml"), FILE)?;
    let mut site = Site::open(folder, program);
    site.add_workers();

    for number in 1..=3 {
        site.enqueue(&json!({ "reel": number }), &["--wait"])?;
    }
    site.enqueue(
        &json!({ "reel": 4 }),
        &["--wait", "--id", "finished-by-name"],
    )?;
    let failed = site.enqueue(&json!({ "cut": "fail" }), &["--id", "failed"])?;
    let discarded = site.enqueue(&json!({ "cut": "fail" }), &["--id", "discarded"])?;
    for id in [&failed, &discarded] {
        site.wait_for(id, "failed", "cut")?;
    }
    site.ask(&["discard", &discarded])?;
    let retried = site.enqueue(&json!({ "grade": "fail" }), &["--id", "tried-in-grade"])?;
    site.wait_for(&retried, "scheduled", "grade")?;

    site.ask(&["pause", "pack"])?;
    for number in 5..=7 {
        let id = site.enqueue(&json!({ "reel": number }), &[])?;
        site.wait_for(&id, "enqueued", "pack")?;
    }
    let cancelled = site.enqueue(&json!({ "reel": 8 }), &["--id", "cancelled"])?;
    site.wait_for(&cancelled, "enqueued", "pack")?;
    site.ask(&["cancel", &cancelled])?;
    site.enqueue(
        &json!({ "reel": 9 }),
        &["--id", "delayed", "--delay", "300d"],
    )?;

    // What the original's clients send.
    let address = site.manager.address("pull").parse()?;
    let frame = json!({
        "id": "of-an-original",
        "pipeline": true,
        "instructions": { "name": "upgrade", "instructions": { "reel": 10 } },
    });
    block_on(async {
        let push = Push::open(Options::default(), address).await?;
        let message: Message = vec![frame.to_string().into()];
        push.send(message)
            .await
            .map_err(|rejected| anyhow!("not sent: {rejected:?}"))?;
        push.close(Duration::from_secs(10)).await;
        anyhow::Ok(())
    })?;
    wait("the original's job", || {
        let jobs = site.jobs()?;
        Ok(jobs.iter().any(|job| job["id"] == "of-an-original"))
    })?;
    site.wait_for("of-an-original", "enqueued", "pack")?;
    site.enqueue(
        &json!({ "cut": "wait for go" }),
        &["--id", "running-when-killed"],
    )?;
    wait("a running job", || Ok(folder.join("started").exists()))?;
    let retried = site.enqueue(
        &json!({ "cut": "fail until go" }),
        &["--id", "tried-in-cut"],
    )?;
    site.wait_for(&retried, "scheduled", "cut")?;
    site.kill();

    // The rest came when there was no worker: it waits in the first phase.
    let mut site = Site::open(folder, program);
    site.enqueue(
        &json!({ "reel": 11, "title": "Čas – 時間" }),
        &["--id", "waiting"],
    )?;
    site.enqueue(&json!({}), &[])?;
    site.kill();
    let arguments = ["journal", "export", "sled:journal", "upgrade", "export"];
    finished(run_program(folder, program, &arguments))?;
    let mut site = Site::open(folder, program);
    let large = "long ".repeat(LARGE_BYTES / 5);
    site.enqueue(&json!({ "script": large }), &["--id", "large"])?;
    let mut said = String::new();
    for job in site.jobs()? {
        let id = job["id"].as_str().context("a job has no id")?;
        said.push_str(&format!("{}\n", shortened(site.job(id)?)));
    }
    site.kill();

    let journal = fixture.join("journal");
    copy_folder(&folder.join("journal"), &journal)?;
    // The database ends in megabytes of zeros that it asked for in advance.
    let database = journal.join("db/db");
    let bytes = fs::read(&database)?;
    let used = bytes.iter().rposition(|byte| *byte != 0);
    fs::write(&database, &bytes[..used.map_or(0, |last| last + 1)])?;
    fs::copy(folder.join("export"), fixture.join("export"))?;
    fs::write(fixture.join("pipeline.toml"), FILE)?;
    fs::write(fixture.join("jobs.jsonl"), said)?;
    Ok(())
}

/// A large text's length instead of itself, so that fixtures stay small.
fn shortened(mut job: Value) -> Value {
    if let Some(length) = job["instructions"]["script"].as_str().map(str::len) {
        job["instructions"]["script"] = json!(length);
    }
    job
}

/// Compares every job with what was said of it.
fn check(site: &Site<'_>, said: &BTreeMap<String, Value>) -> Result<()> {
    let there: BTreeSet<String> = site
        .jobs()?
        .iter()
        .filter_map(|job| Some(job["id"].as_str()?.to_owned()))
        .collect();
    let expected: BTreeSet<String> = said.keys().cloned().collect();
    ensure!(
        there == expected,
        "there are the jobs {there:?}, there were {expected:?}"
    );
    let facts = |job: &Value| {
        let mut facts = job.clone();
        // It tells of this moment, not of the job.
        facts["view"]["reason"] = Value::Null;
        facts
    };
    for (id, said) in said {
        let (mut now, mut said) = (facts(&shortened(site.job(id)?)), facts(said));
        if said["view"]["state"] == "scheduled" && !until_is_ahead(&said) {
            // Its time has come since.
            said["view"]["state"] = json!("enqueued");
            for job in [&mut now, &mut said] {
                job["not_before"] = Value::Null;
                job["view"]["changed_at"] = Value::Null;
            }
        }
        ensure!(includes(&now, &said), "job {id} is {now}, it was {said}");
    }
    Ok(())
}

/// Whether `now` says all that `said` says; later versions may say more.
fn includes(now: &Value, said: &Value) -> bool {
    match (now, said) {
        (Value::Object(now), Value::Object(said)) => said
            .iter()
            .all(|(key, said)| now.get(key).is_some_and(|now| includes(now, said))),
        (Value::Array(now), Value::Array(said)) => {
            now.len() == said.len() && now.iter().zip(said).all(|(now, said)| includes(now, said))
        }
        _ => now == said,
    }
}

/// Whether a job waits for a time that this machine's clock has not reached.
fn until_is_ahead(job: &Value) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_micros());
    job["not_before"]
        .as_u64()
        .is_some_and(|until| u128::from(until) > now)
}

/// Copies files and folders; the lock is of no use to anybody else.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if entry.file_name() != "lock" {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Every committed fixture, the oldest first.
///
/// # Errors
/// When their folder cannot be read.
pub fn all() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(workspace().join("tests/fixtures"))? {
        let path = entry?.path();
        if path.join("jobs.jsonl").exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What going on with an earlier version's journal came to.
#[derive(Debug, Default)]
pub struct GoneOn {
    /// How many jobs were as the earlier version had said.
    pub as_told: usize,
    /// How many of those were live, and ended now.
    pub ended: usize,
    /// From starting the manager to its first answer.
    pub opened_in: Duration,
}

/// Opens a copy of a fixture with `program`, checks each job and lets the live ones end.
/// With `through_export` the fixture's export is imported instead of copying the folder.
///
/// # Errors
/// With the first thing that is not as the earlier version had said.
pub fn go_on(program: &Path, fixture: &Path, through_export: bool) -> Result<GoneOn> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    fs::copy(fixture.join("pipeline.toml"), folder.join("pipeline.toml"))?;
    if through_export {
        let export = fixture.join("export");
        let export = export.to_str().context("a path that is no text")?;
        let arguments = ["journal", "import", "sled:journal", "upgrade", export];
        finished(run_program(folder, program, &arguments)).context("importing")?;
    } else {
        copy_folder(&fixture.join("journal"), &folder.join("journal"))?;
    }
    let said = fs::read_to_string(fixture.join("jobs.jsonl"))?;
    let said: Vec<Value> = said
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    // The export was made before the large job came.
    let said: BTreeMap<String, Value> = said
        .into_iter()
        .filter_map(|job| Some((job["view"]["id"].as_str()?.to_owned(), job)))
        .filter(|(id, _)| !through_export || id != "large")
        .collect();

    let started = Instant::now();
    let mut site = Site::open(folder, program);
    check(&site, &said)?;
    let mut gone_on = GoneOn {
        as_told: said.len(),
        opened_in: started.elapsed(),
        ..GoneOn::default()
    };
    // What this version has added to the journal must not stand in the way of the rest.
    site.kill();
    let mut site = Site::open(folder, program);
    check(&site, &said).context("after another restart")?;

    fs::write(folder.join("go"), "")?;
    site.add_workers();
    let live: Vec<&String> = said
        .iter()
        .filter(|(_, job)| {
            !["success", "cancelled"]
                .iter()
                .any(|state| job["view"]["state"] == *state)
        })
        .map(|(id, _)| id)
        .collect();
    let mut expected: BTreeMap<&str, &str> =
        live.iter().map(|id| (id.as_str(), "success")).collect();
    // They would succeed or fail in weeks.
    for id in ["delayed", "tried-in-grade"] {
        site.ask(&["cancel", id])?;
        expected.insert(id, "cancelled");
    }
    // Where the clock is behind that of the fixture's maker, it is not its turn yet.
    if until_is_ahead(&said["tried-in-cut"]) {
        site.ask(&["cancel", "tried-in-cut"])?;
        expected.insert("tried-in-cut", "cancelled");
    }
    site.ask(&["retry", "failed"])?;
    expected.insert("failed", "failed");
    let stats = site.stats()?;
    let paused: Vec<bool> = (0..PHASES.len())
        .map(|phase| stats["stats"]["phases"][phase]["paused"] == true)
        .collect();
    ensure!(
        paused == [false, false, true],
        "the last phase alone was paused: {stats}"
    );
    site.ask(&["resume", "pack"])?;
    for (id, state) in &expected {
        wait(&format!("{state} of {id}"), || {
            Ok(site.job(id)?["view"]["state"] == **state)
        })
        .with_context(|| site.job(id).map(|job| job.to_string()).unwrap_or_default())?;
        let job = site.job(id)?;
        if *state == "success" {
            for (key, what) in [("cut_done", "cut"), ("graded", "grade"), ("packed", "pack")] {
                ensure!(
                    job["instructions"][key] == true,
                    "{id} has no result of {what}: {job}"
                );
            }
        }
    }
    gone_on.ended = expected.len();
    // A job that ended before is known still: the same id is not run again.
    let again = site.enqueue(
        &json!({ "reel": 4 }),
        &["--id", "finished-by-name", "--wait"],
    )?;
    ensure!(again == "finished-by-name", "{again} was enqueued");
    ensure!(
        site.job(&again)?["attempts"] == said[&again]["attempts"],
        "a finished job ran again after the upgrade"
    );
    site.manager.signal(Signal::TERM);
    let status = site.manager.wait();
    ensure!(status.success(), "the manager ended with {status}");
    Ok(gone_on)
}
