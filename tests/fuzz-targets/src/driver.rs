//! Runs targets on stable Rust: the committed corpus, then inputs made out of it.
//!
//! Every input is made from a seed that is printed, so that a run can be repeated. A
//! panic ends the run and leaves its input in a file. An input that ends the process
//! (an abort, a stack that is used up) is found by running the same seed once more with
//! each input written down first: that is the caller's part, since it must outlive it.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use crate::Target;
use crate::mutate::mutate;

/// An input that takes longer is a finding.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The folder with a folder of inputs for each target.
    pub corpus: PathBuf,
    /// Where inputs that fail are left.
    pub findings: PathBuf,
    /// What inputs are made from.
    pub seed: u64,
    /// How long to make new inputs.
    pub time: Duration,
    /// How many new inputs to make at most.
    pub inputs_max: Option<u64>,
    /// Write each input down before it is tried.
    pub careful: bool,
}

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Inputs that were there: the corpus and the target's own.
    pub replayed: usize,
    /// Inputs that were made.
    pub made: u64,
}

/// Runs one target.
///
/// # Errors
/// When an input fails, with its file and how to try it again.
pub fn run(target: &Target, plan: &Plan) -> Result<Done> {
    let mut corpus = (target.seeds)();
    corpus.extend(read_folder(&plan.corpus.join(target.name))?);
    let trial = Trial {
        target,
        plan,
        watch: Watch::start(target.name, &plan.findings),
    };
    quietly(|| {
        for input in &corpus {
            trial.check(input)?;
        }
        let replayed = corpus.len();
        let until = Instant::now().checked_add(plan.time);
        let mut random = Rng::with_seed(plan.seed);
        let mut made = 0;
        while until.is_none_or(|until| Instant::now() < until)
            && plan.inputs_max.is_none_or(|max| made < max)
        {
            made += 1;
            let input = mutate(&corpus, target.dictionary, target.bytes_max, &mut random);
            trial.check(&input)?;
        }
        Ok(Done { replayed, made })
    })
}

/// Tries one input from a file, with the panic as it comes.
///
/// # Errors
/// When the file cannot be read.
pub fn replay(target: &Target, file: &Path) -> Result<()> {
    let input = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    (target.run)(&input);
    Ok(())
}

struct Trial<'a> {
    target: &'a Target,
    plan: &'a Plan,
    watch: Watch,
}

impl Trial<'_> {
    fn check(&self, input: &[u8]) -> Result<()> {
        if self.plan.careful {
            leave(&self.plan.findings, self.target.name, "last", input)?;
        }
        self.watch.begin(input);
        let result = panic::catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        self.watch.end();
        let Err(_) = result else { return Ok(()) };
        let what = last_panic().unwrap_or_else(|| "a panic without words".to_owned());
        let file = leave(&self.plan.findings, self.target.name, "panic", input)?;
        bail!("{}", finding(self.target.name, &what, &file));
    }
}

/// What a finding looks like to a person.
fn finding(target: &str, what: &str, file: &Path) -> String {
    format!(
        "target {target}: {what}\n  input: {file}\n  again: cargo xtask fuzz {target} --replay {file}",
        file = file.display()
    )
}

/// Writes an input down and says where.
fn leave(folder: &Path, target: &str, what: &str, input: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let file = match what {
        "last" => folder.join(format!("{target}-last")),
        _ => folder.join(format!("{target}-{what}-{:08x}", crc32c::crc32c(input))),
    };
    fs::write(&file, input).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// The inputs of a folder, in order of their names; none when there is no such folder.
fn read_folder(folder: &Path) -> Result<Vec<Vec<u8>>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut files = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    };
    let files = read().with_context(|| format!("reading {}", folder.display()))?;
    files
        .iter()
        .map(|file| fs::read(file).with_context(|| format!("reading {}", file.display())))
        .collect()
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn last_panic() -> Option<String> {
    LAST_PANIC
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

/// Keeps panics off the screen, and the last one in mind.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    panic::set_hook(Box::new(|info| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
    }));
    let result = work();
    drop(panic::take_hook());
    result
}

/// Ends the process when an input takes too long, with the input in a file.
struct Watch {
    trying: Arc<Trying>,
}

/// The input that is being tried, and since when.
type Trying = Mutex<Option<(Instant, Vec<u8>)>>;

impl Watch {
    fn start(target: &'static str, findings: &Path) -> Watch {
        let trying: Arc<Trying> = Arc::default();
        let weak = Arc::downgrade(&trying);
        let findings = findings.to_owned();
        std::thread::spawn(move || {
            while let Some(trying) = weak.upgrade() {
                let found = {
                    let trying = trying.lock().unwrap_or_else(PoisonError::into_inner);
                    let slow = |(since, _): &&(Instant, Vec<u8>)| since.elapsed() > INPUT_TIME_MAX;
                    trying.as_ref().filter(slow).map(|(_, input)| input.clone())
                };
                if let Some(input) = found {
                    let what = format!("an input takes more than {INPUT_TIME_MAX:?}");
                    match leave(&findings, target, "slow", &input) {
                        Ok(file) => eprintln!("error: {}", finding(target, &what, &file)),
                        Err(error) => eprintln!("error: {what}, and {error:#}"),
                    }
                    std::process::exit(1);
                }
                drop(trying);
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        Watch { trying }
    }

    fn begin(&self, input: &[u8]) {
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), input.to_vec()));
    }

    fn end(&self) {
        *self.trying.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINDS: Target = Target {
        name: "finds",
        about: "fails when it is given three letters",
        run: |input| assert!(!input.windows(3).any(|three| three == b"bad"), "found it"),
        seeds: || vec![b"good".to_vec()],
        dictionary: &[b"bad"],
        bytes_max: 64,
    };

    fn plan(findings: &Path) -> Plan {
        Plan {
            corpus: findings.join("none"),
            findings: findings.to_owned(),
            seed: 5,
            time: Duration::from_secs(60),
            inputs_max: Some(100_000),
            careful: false,
        }
    }

    #[test]
    fn finding_is_left_in_a_file_and_told_with_how_to_try_it_again() {
        let folder = std::env::temp_dir().join(format!("carbontube-fuzz-{}", std::process::id()));
        let error = run(&FINDS, &plan(&folder)).expect_err("it finds something");
        let text = format!("{error:#}");
        assert!(text.contains("found it"), "{text}");
        assert!(text.contains("cargo xtask fuzz finds --replay"), "{text}");
        let file = fs::read_dir(&folder)
            .expect("a folder of findings")
            .next()
            .expect("a finding")
            .expect("a file")
            .path();
        let input = fs::read(file).expect("the input");
        assert!(input.windows(3).any(|three| three == b"bad"));
        let again = run(&FINDS, &plan(&folder)).expect_err("it finds it again");
        assert_eq!(format!("{again:#}"), text, "one seed, one finding");
        fs::remove_dir_all(folder).expect("our own folder");
    }
}
