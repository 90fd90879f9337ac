//! The sled store: everything the others promise, on a disk that is not trusted.

use std::path::{Path, PathBuf};

use carbontube_storage::conformance::{Place, Step, conformance, run_steps};
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
