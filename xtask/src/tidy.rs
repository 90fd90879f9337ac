//! The house rules that no compiler checks: `cargo xtask tidy`.
//!
//! Every rule is a function from text to problems, so that each has a test that sees it
//! fail. Reading files and asking cargo happens here only.

mod graph;
mod supply;
mod text;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file, from the workspace's root, or the crate.
    place: String,
    /// The line, from 1, where there is one.
    line: Option<usize>,
    /// What is wrong, and what to do.
    text: String,
}

impl Problem {
    fn new(place: &str, line: Option<usize>, text: impl Into<String>) -> Self {
        Problem {
            place: place.to_owned(),
            line,
            text: text.into(),
        }
    }
}

/// Checks the workspace at `root`; `bless_wire` records the wire types' digest in
/// `docs/protocol.md` first.
pub(crate) fn run(root: &Path, bless_wire: bool) -> Result<()> {
    let files = files(root)?;
    if bless_wire {
        wire::bless(root, &files)?;
    }
    let mut problems = Vec::new();
    for file in &files {
        let Ok(source) = std::fs::read_to_string(root.join(file)) else {
            continue; // Not text: an image, a fixture of a journal.
        };
        problems.extend(text::check(&file.to_string_lossy(), &source));
    }
    problems.extend(graph::check(root)?);
    problems.extend(supply::check(root)?);
    problems.extend(wire::check(root, &files)?);
    for problem in &problems {
        match problem.line {
            Some(line) => println!("{}:{line}: {}", problem.place, problem.text),
            None => println!("{}: {}", problem.place, problem.text),
        }
    }
    if !problems.is_empty() {
        bail!("tidy: {} problems in {} files", problems.len(), files.len());
    }
    println!("tidy: {} files, no problem", files.len());
    Ok(())
}

/// Every file that belongs to the project, in order, from `root`.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root.join(&folder))
            .with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let kind = entry.file_type()?;
            let produced = name.starts_with("target")
                || matches!(
                    &*name,
                    ".git" | "__pycache__" | ".venv" | "carbontube-journal"
                )
                || name.ends_with("_cache")
                || name.ends_with(".egg-info");
            if kind.is_dir() && !produced {
                folders.push(folder.join(&*name));
            } else if kind.is_file() && name != ".git" {
                found.push(folder.join(&*name));
            }
        }
    }
    found.sort();
    Ok(found)
}
