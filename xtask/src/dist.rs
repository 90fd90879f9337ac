//! `cargo xtask dist`: one stripped, fully static binary, checked to be one.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cargo::{self, step};

/// Builds it, checks it and says where it is and how large.
pub(crate) fn run() -> Result<()> {
    let host = cargo::host()?;
    let target = cargo::target()?.join("static");
    let mut build = cargo::cargo();
    // A target given by name keeps crt-static away from build scripts and proc-macros.
    build
        .args(["build", "--profile", "dist", "--package", "carbontube"])
        .args(["--bin", "carbontube", "--features", "redis"])
        .args(["--target", &host])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(cargo::root());
    step("dist", &mut build)?;
    let binary = target.join(&host).join("dist/carbontube");
    let ldd = Command::new("ldd")
        .arg(&binary)
        .output()
        .context("starting ldd")?;
    let said = String::from_utf8_lossy(&[ldd.stdout, ldd.stderr].concat()).into_owned();
    ensure!(
        said.contains("statically linked") || said.contains("not a dynamic executable"),
        "{} is not static, ldd says: {said}",
        binary.display()
    );
    let version = Command::new(&binary)
        .arg("version")
        .output()
        .with_context(|| format!("starting {}", binary.display()))?;
    ensure!(
        version.status.success(),
        "the binary's version command ended with {}",
        version.status
    );
    let bytes = std::fs::metadata(&binary)?.len();
    println!(
        "dist: {} is static, {:.1} MB ({bytes} bytes), {}",
        binary.display(),
        bytes as f64 / 1e6,
        String::from_utf8_lossy(&version.stdout).trim()
    );
    Ok(())
}
