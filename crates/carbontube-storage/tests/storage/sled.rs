//! The sled store: everything the others promise, on a disk that is not trusted.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use carbontube_storage::conformance::{Place, Step, conformance, run_steps};
use carbontube_storage::trials::{check_acknowledged, write_acknowledged};
use carbontube_storage::{Commit, Log, OpenMode, OpenOptions, PageSeq, Store, StoreError, open};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("journal")
    }
}

impl Place for Folder {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        open_path(&self.path())
    }
}

fn open_path(path: &Path) -> Result<Box<dyn Store>, StoreError> {
    open(&format!("sled:{}", path.display()), &OpenOptions::new("p"))
}

#[test]
fn sled_conforms() {
    conformance(&mut || Box::new(Folder::new()));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn sled_agrees_with_the_model_on_any_steps(steps in proptest::collection::vec(any_step(), 1..25)) {
        run_steps(&Folder::new(), &steps);
    }
}

fn any_step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    let sizes = |most| proptest::collection::vec(any::<u16>(), 0..most);
    prop_oneof![
        8 => (sizes(5), sizes(3), any::<[u8; 2]>()).prop_map(|(journal, history, remove)| {
            Step::Commit { journal, history, remove }
        }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Restart),
    ]
}

const WRITER: &str = "CARBONTUBE_TEST_WRITER";

/// Runs itself as the writer it kills, in a process of its own.
#[test]
fn killed_writer_has_lost_nothing_that_it_acknowledged() {
    if let Some(path) = std::env::var_os(WRITER) {
        let mut store = open_path(Path::new(&path)).unwrap();
        let go = std::io::stdin().lock();
        // The harness writes to stdout as well, so answers go the other way.
        write_acknowledged(store.as_mut(), go, std::io::stderr()).unwrap();
        return;
    }
    let folder = Folder::new();
    let mut random = fastrand::Rng::with_seed(77);
    let mut next = PageSeq::FIRST;
    for round in 0..12 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sled::killed_writer_has_lost_nothing_that_it_acknowledged",
            ])
            .arg("--nocapture")
            .env(WRITER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut go = writer.stdin.take().unwrap();
        let mut answers = BufReader::new(writer.stderr.take().unwrap()).lines();
        for _ in 0..random.u32(1..60) {
            go.write_all(b"go\n").unwrap();
            next = PageSeq(answers.next().unwrap().unwrap().parse().unwrap());
        }
        if round == 0 {
            let error = folder.open().err().unwrap();
            let expected = format!("process {}", writer.id());
            assert!(
                matches!(&error, StoreError::Locked { holder, .. } if *holder == expected),
                "{error}"
            );
        }
        // Some of these are under way when it is killed.
        go.write_all(b"go\ngo\ngo\ngo\n").unwrap();
        thread::sleep(Duration::from_micros(random.u64(0..1500)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let mut store = folder.open().unwrap();
        check_acknowledged(store.as_mut(), next).unwrap();
        next = store.bounds(Log::Journal).next;
    }
    assert!(
        next > PageSeq(300),
        "it has hardly written anything: {next}"
    );
}

#[test]
fn journal_of_another_pipeline_is_refused_and_left_alone() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    let uri = format!("sled:{}", folder.path().display());
    let error = open(&uri, &OpenOptions::new("q")).err().unwrap();
    assert!(matches!(error, StoreError::OtherPipeline { .. }), "{error}");
    drop(folder.open().unwrap());
}

#[test]
fn journal_that_must_exist_is_not_made() {
    let folder = Folder::new();
    let uri = format!("sled:{}", folder.path().display());
    let options = OpenOptions {
        mode: OpenMode::Existing,
        ..OpenOptions::new("p")
    };
    let error = open(&uri, &options).err().unwrap();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!folder.path().exists());
    drop(folder.open().unwrap());
    drop(open(&uri, &options).unwrap());
}

#[test]
fn churn_keeps_the_folder_small() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    for seq in 1..=3000 {
        let mut commit = Commit::new();
        commit.put(Log::Journal, PageSeq(seq), vec![seq as u8; 60_000]);
        if seq > 20 {
            commit.truncate_before(Log::Journal, PageSeq(seq - 20));
        }
        store.commit(&commit).unwrap();
    }
    let bytes = store.usage().unwrap().bytes;
    assert!(bytes < 180_000_000 / 2, "{bytes} bytes for 1.2 MB live");
}
