//! The driver as a program: what `cargo xtask fuzz` starts.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use argh::FromArgs;
use carbontube_fuzz_targets::driver::{Plan, replay, run};
use carbontube_fuzz_targets::{TARGETS, Target, target};

/// Throws bytes at everything that takes bytes from strangers: the committed corpus
/// first, then inputs made out of it.
#[derive(FromArgs)]
struct Arguments {
    /// targets to run; all of them without one
    #[argh(positional)]
    targets: Vec<String>,
    /// how many seconds to make new inputs for each target (10)
    #[argh(option)]
    seconds: Option<u64>,
    /// how many minutes to make new inputs for each target
    #[argh(option)]
    minutes: Option<u64>,
    /// what inputs are made from; drawn and printed when left out
    #[argh(option)]
    seed: Option<u64>,
    /// how many new inputs to make for each target at most
    #[argh(option)]
    inputs: Option<u64>,
    /// try this one input and nothing else
    #[argh(option)]
    replay: Option<PathBuf>,
    /// list the targets
    #[argh(switch)]
    list: bool,
    /// write the targets' own first inputs into this folder, one folder for each, and
    /// their words into a file for each, as libFuzzer takes them
    #[argh(option)]
    write_seeds: Option<PathBuf>,
    /// the corpus (fuzz/corpus)
    #[argh(option, default = "PathBuf::from(\"fuzz/corpus\")")]
    corpus: PathBuf,
    /// where inputs that fail are left (target/fuzz-findings)
    #[argh(option, default = "PathBuf::from(\"target/fuzz-findings\")")]
    findings: PathBuf,
    /// run in this process, writing each input down before it is tried
    #[argh(switch)]
    careful: bool,
    /// run in this process
    #[argh(switch)]
    here: bool,
}

fn main() -> ExitCode {
    match work(&argh::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for target in TARGETS {
            println!("{:12}{}", target.name, target.about);
        }
        return Ok(());
    }
    if let Some(folder) = &arguments.write_seeds {
        return write_seeds(folder);
    }
    let targets = chosen(&arguments.targets)?;
    if let Some(file) = &arguments.replay {
        let [target] = targets[..] else {
            bail!("--replay needs the one target that the input is for");
        };
        replay(target, file)?;
        println!("{}: nothing wrong with {}", target.name, file.display());
        return Ok(());
    }
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let seconds = match (arguments.seconds, arguments.minutes) {
        (Some(_), Some(_)) => bail!("give --seconds or --minutes, not both"),
        (Some(seconds), None) => seconds,
        (None, Some(minutes)) => minutes.saturating_mul(60),
        (None, None) => 10,
    };
    let plan = Plan {
        corpus: arguments.corpus.clone(),
        findings: arguments.findings.clone(),
        seed,
        time: Duration::from_secs(seconds),
        inputs_max: arguments.inputs,
        careful: arguments.careful,
    };
    if arguments.here || arguments.careful {
        for target in targets {
            let done = run(target, &plan)?;
            let (replayed, made) = (done.replayed, done.made);
            println!("{:12}{replayed:>6} replayed {made:>10} made", target.name);
        }
        return Ok(());
    }
    println!("seed {seed}, {seconds} s for each target");
    let mut failed = Vec::new();
    for target in targets {
        if !in_a_process(target, &plan)? {
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("found something: {}", failed.join(", "));
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        target(name).with_context(|| {
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            format!("no target {name:?}; there are {}", all.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Runs a target in a process of its own; false when it found something.
fn in_a_process(target: &Target, plan: &Plan) -> Result<bool> {
    let status = child(target, plan, false).status()?;
    if let Some(signal) = status.signal() {
        // Not a panic: the input that did it is the last one of the same run, done again.
        let again = child(target, plan, true).status()?;
        let file = plan.findings.join(format!("{}-last", target.name));
        let name = target.name;
        if again.signal().is_some() {
            eprintln!(
                "error: target {name}: signal {signal} ended the process\n  input: {file}\n  again: cargo xtask fuzz {name} --replay {file}",
                file = file.display()
            );
        } else {
            eprintln!(
                "error: target {name}: signal {signal} ended the process, but not a second one with seed {}",
                plan.seed
            );
        }
    }
    Ok(status.success())
}

fn child(target: &Target, plan: &Plan, careful: bool) -> Command {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("carbontube-fuzz"));
    let mut command = Command::new(own);
    command.arg(target.name).arg("--corpus").arg(&plan.corpus);
    command.arg("--findings").arg(&plan.findings);
    command.arg("--seed").arg(plan.seed.to_string());
    // Writing inputs down is slow.
    let time = plan.time * if careful { 20 } else { 1 };
    command.arg("--seconds").arg(time.as_secs().to_string());
    if let Some(inputs) = plan.inputs_max {
        command.arg("--inputs").arg(inputs.to_string());
    }
    command.arg(if careful { "--careful" } else { "--here" });
    command
}

fn write_seeds(folder: &Path) -> Result<()> {
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index:03}")), seed)?;
        }
        let words: String = target.dictionary.iter().map(|word| entry(word)).collect();
        std::fs::write(folder.with_extension("dict"), words)?;
    }
    Ok(())
}

/// A line of libFuzzer's dictionaries.
fn entry(word: &[u8]) -> String {
    let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{escaped}\"\n")
}
