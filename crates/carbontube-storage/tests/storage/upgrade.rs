//! Journals of every format version that was ever released.

use std::fs;
use std::path::Path;

use carbontube_storage::{Log, LostPages, OpenOptions, PageSeq, Store, StoreError, import, open};

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn check_v1(store: &mut dyn Store) {
    for (log, first, next) in [(Log::Journal, 6, 13), (Log::History, 2, 5)] {
        let bounds = store.bounds(log);
        assert_eq!((bounds.first.0, bounds.next.0), (first, next), "{log}");
    }
    for seq in 6..13_u8 {
        let page = store.read(Log::Journal, PageSeq(seq.into())).unwrap();
        assert_eq!(page, Some(vec![b'a' + seq; 10 * usize::from(seq)]));
    }
    for seq in 2..5_u8 {
        let page = store.read(Log::History, PageSeq(seq.into())).unwrap();
        assert_eq!(page, Some(vec![b'A' + 3 * seq; 3 * usize::from(seq)]));
    }
}

#[test]
fn journal_of_format_1_is_opened_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    copy(&fixtures().join("v1/journal"), &place);
    let uri = format!("sled:{}", place.display());
    let mut store = open(&uri, &OpenOptions::new("fixture")).unwrap();
    check_v1(store.as_mut());
    let mut commit = carbontube_storage::Commit::new();
    commit.put(Log::Journal, PageSeq(13), b"new".to_vec());
    store.commit(&commit).unwrap();
}

#[test]
fn export_of_format_1_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("sled:{}", dir.path().join("journal").display());
    let options = OpenOptions::new("fixture");
    let file = fixtures().join("v1/export");
    import(&file, &uri, &options, LostPages::Refuse).unwrap();
    check_v1(open(&uri, &options).unwrap().as_mut());
}

#[test]
fn journal_and_export_of_a_later_format_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("journal");
    copy(&fixtures().join("v1/journal"), &place);
    let marker = place.join("carbontube-journal");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("format 1", "format 7")).unwrap();
    let uri = format!("sled:{}", place.display());
    let options = OpenOptions::new("fixture");
    let error = open(&uri, &options).err().unwrap();
    assert!(matches!(error, StoreError::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("format 7"), "{error}");

    let mut bytes = fs::read(fixtures().join("v1/export")).unwrap();
    bytes[4] = 7;
    let file = dir.path().join("export");
    fs::write(&file, bytes).unwrap();
    let other = format!("sled:{}", dir.path().join("other").display());
    let error = import(&file, &other, &options, LostPages::Refuse).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }), "{error:?}");
}
