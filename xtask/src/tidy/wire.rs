//! The wire types may not change without `docs/protocol.md`.
//!
//! The document ends with a digest of the sources that say what the bytes mean. Comments,
//! blank lines and tests do not count. Whoever changes the types reads the document again
//! and records the new digest with `cargo xtask tidy --bless-wire`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::Problem;

const DOCUMENT: &str = "docs/protocol.md";
const SOURCES: &str = "crates/carbontube-protocol/src";
const MARK: &str = "<!-- wire-digest: ";

/// Sources of the protocol crate that do not say what the bytes mean.
const SILENT: [&str; 3] = ["lib.rs", "error.rs", "tests.rs"];

/// Compares the digest in the document with the sources.
pub(super) fn check(root: &Path, files: &[PathBuf]) -> Result<Vec<Problem>> {
    let digest = digest(root, files)?;
    let Ok(document) = std::fs::read_to_string(root.join(DOCUMENT)) else {
        return Ok(vec![Problem::new(DOCUMENT, None, "is missing")]);
    };
    Ok(compare(&document, &digest).into_iter().collect())
}

/// Records the sources' digest in the document.
pub(super) fn bless(root: &Path, files: &[PathBuf]) -> Result<()> {
    let path = root.join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    std::fs::write(&path, record(&document, &digest(root, files)?))?;
    Ok(())
}

fn compare(document: &str, digest: &str) -> Option<Problem> {
    let recorded = document
        .lines()
        .find_map(|line| line.strip_prefix(MARK)?.strip_suffix(" -->"));
    if recorded == Some(digest) {
        return None;
    }
    let text = format!(
        "records wire types {}, the sources are {digest}: check the document against them, then run cargo xtask tidy --bless-wire",
        recorded.unwrap_or("nowhere")
    );
    Some(Problem::new(DOCUMENT, None, text))
}

fn record(document: &str, digest: &str) -> String {
    let mut lines: Vec<&str> = document
        .lines()
        .filter(|line| !line.starts_with(MARK))
        .collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    format!("{}\n\n{MARK}{digest} -->\n", lines.join("\n"))
}

fn digest(root: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let path = file.to_string_lossy();
        if !file.starts_with(SOURCES) || path.contains("tests") || SILENT.contains(&&*name) {
            continue;
        }
        let source = std::fs::read_to_string(root.join(file))?;
        hash.update(path.as_bytes());
        hash.update(meaning(&source).as_bytes());
    }
    let hash = hash.finalize();
    Ok(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The source without comments, blank lines, indentation and tests.
fn meaning(source: &str) -> String {
    let mut kept = String::new();
    for line in source.lines().map(str::trim) {
        if line == "#[cfg(test)]" {
            break;
        }
        if !line.is_empty() && !line.starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_tests_do_not_change_the_meaning() {
        let one = "//! A.\npub struct A {\n    b: u8,\n}\n";
        let two = "//! B.\n\npub struct A {\n  // why\n  b: u8,\n}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(meaning(one), meaning(two));
        assert_ne!(meaning(one), meaning("pub struct A {\n    b: u16,\n}\n"));
    }

    #[test]
    fn recorded_digest_passes_and_another_does_not() {
        let document = record("# Protocol\n\nText.\n", "0011");
        assert_eq!(compare(&document, "0011"), None);
        assert!(compare(&document, "0022").is_some());
        assert!(compare("# Protocol\n", "0011").is_some());
    }

    #[test]
    fn recording_again_replaces_the_old_digest() {
        let document = record(&record("# Protocol\n", "0011"), "0022");
        assert_eq!(document, "# Protocol\n\n<!-- wire-digest: 0022 -->\n");
    }

    #[test]
    fn changed_type_changes_the_digest() {
        let root = tempfile::tempdir().unwrap();
        let file = PathBuf::from(SOURCES).join("message.rs");
        std::fs::create_dir_all(root.path().join(SOURCES)).unwrap();
        let write = |text: &str| std::fs::write(root.path().join(&file), text).unwrap();
        write("pub struct A;\n");
        let before = digest(root.path(), std::slice::from_ref(&file)).unwrap();
        write("pub struct B;\n");
        let after = digest(root.path(), std::slice::from_ref(&file)).unwrap();
        assert_ne!(before, after);
    }
}
