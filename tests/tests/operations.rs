//! What `docs/operations.md` explains is what the software counts: nothing more can be
//! counted without being explained there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use carbontube_transport::CountersSnapshot;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names in `count("name"` of the manager's core.
fn counted_by_the_core() -> BTreeSet<String> {
    let folder = root().join("crates/carbontube-manager/src/core");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the core has a folder") {
        let path = entry.expect("a folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(path).expect("a source can be read");
        for part in text.split("count(").skip(1) {
            if let Some(quoted) = part.trim_start().strip_prefix('"') {
                let name = quoted.split('"').next().expect("a split has a first part");
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// The names in the shell's table of counts.
fn counted_by_the_shell() -> BTreeSet<String> {
    let text = root().join("crates/carbontube-manager/src/tally.rs");
    let text = fs::read_to_string(text).expect("a source can be read");
    let table = text.split("\ntally! {").nth(1);
    let table = table.expect("the table of counts is there");
    let table = table.split("\n}").next();
    let table = table.expect("a split has a first part");
    let names = table.lines().map(str::trim);
    let names = names.filter(|line| !line.starts_with("///"));
    let names = names.filter_map(|line| line.strip_suffix(','));
    names.map(str::to_owned).collect()
}

fn counted_by_sockets() -> BTreeSet<String> {
    let fields = CountersSnapshot::default().fields();
    fields
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_count_is_explained() {
    let (core, shell) = (counted_by_the_core(), counted_by_the_shell());
    assert!(core.contains("workers_lost"), "{core:?}");
    assert!(shell.contains("events_dropped"), "{shell:?}");
    let page = fs::read_to_string(root().join("docs/operations.md"));
    let page = page.expect("the page is there");
    let missing: Vec<_> = [core, shell, counted_by_sockets()]
        .into_iter()
        .flatten()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/operations.md lacks {missing:?}");
}
