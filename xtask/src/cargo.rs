//! Runs cargo and other tools for the verbs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What cargo prints for `arguments`.
pub(crate) fn output(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = cargo()
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(
        output.status.success(),
        "cargo {} ended with {}",
        arguments.join(" "),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command to its end, with a heading and its time on stderr.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    eprintln!("== {title}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("{title}: ended with {status}");
    }
    eprintln!("== {title}: good, {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A step of cargo in the workspace.
pub(crate) fn cargo_step(title: &str, arguments: &[&str]) -> Result<()> {
    step(title, cargo().args(arguments).current_dir(root()))
}

/// Where cargo builds.
pub(crate) fn target() -> Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Metadata = serde_json::from_str(&output(&root(), &arguments)?)?;
    Ok(metadata.target_directory)
}

/// The name of the platform that we run on.
pub(crate) fn host() -> Result<String> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .arg("-vV")
        .output()
        .context("starting rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
