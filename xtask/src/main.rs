//! `cargo xtask VERB`: everything that is done to the workspace beyond building it.

mod cargo;
mod ci;
mod dist;
mod fuzz;
mod sim;
mod test_set;
mod tidy;
mod trials;

use std::process::ExitCode;

use anyhow::Result;
use argh::FromArgs;

/// Automation for the Carbontube workspace.
#[derive(FromArgs)]
struct Xtask {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Verb {
    Bench(Bench),
    Ci(Ci),
    Demo(Demo),
    Dist(Dist),
    Fuzz(Fuzz),
    Pictures(Pictures),
    Scenario(Scenario),
    Sim(Sim),
    Test(Test),
    Tidy(Tidy),
}

/// Measure jobs a second and latency, beside the socket's and the journal's own limits
/// (see `cargo xtask bench --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "bench")]
struct Bench {
    /// options of the bench, --json among them
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Run a pipeline of separate processes on real files, kill some, and check the outcome
/// (see `cargo xtask demo --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "demo")]
struct Demo {
    /// options of the demo: --web, --input DIR, --files N, --keep
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Run trials with real processes, faults among them: NAME… or --all
/// (see `cargo xtask scenario --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "scenario")]
struct Scenario {
    /// names, or options of the scenarios: --all, --short, --seed N, --soak MINUTES, --list
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Run whole pipelines in virtual time, with every fault, and check what must hold after
/// each step (see `cargo xtask sim --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "sim")]
struct Sim {
    /// options of the simulator: --seed N, --seeds N, --minutes M, --trace, --mutations
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Take pictures of the web interface for the documentation, of a real cluster in a real
/// browser (see `cargo xtask pictures --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "pictures")]
struct Pictures {
    /// options of the pictures: --folder DIR
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// What a change must pass: format, clippy, docs, tidy, test, short trials.
#[derive(FromArgs)]
#[argh(subcommand, name = "ci")]
struct Ci {
    /// leave out the test set, where it has just run
    #[argh(switch)]
    without_test: bool,
}

/// Build one stripped, fully static binary, and check that it is one.
#[derive(FromArgs)]
#[argh(subcommand, name = "dist")]
struct Dist {}

/// Throw bytes at everything that takes bytes from strangers, on stable Rust: the
/// committed corpus, then inputs made out of it (see `cargo xtask fuzz --help`).
#[derive(FromArgs)]
#[argh(subcommand, name = "fuzz")]
struct Fuzz {
    /// targets, or options: --seconds N, --minutes N, --seed N, --replay FILE, --list
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Run the whole test set.
#[derive(FromArgs)]
#[argh(subcommand, name = "test")]
struct Test {}

/// Check the house rules that no compiler checks.
#[derive(FromArgs)]
#[argh(subcommand, name = "tidy")]
struct Tidy {
    /// record in docs/protocol.md that it was checked against the wire types as they are
    #[argh(switch)]
    bless_wire: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match passed_on(&arguments) {
        // These programs have their own options; argh would take them for ours.
        Some(("fuzz", rest)) => fuzz::become_driver(rest),
        Some(("sim", rest)) => sim::become_simulator(rest),
        Some((verb, rest)) => trials::become_trial(verb, rest),
        None => run(argh::from_env::<Xtask>().verb),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The verb and the arguments of a command line that the trials program reads itself.
fn passed_on(arguments: &[String]) -> Option<(&str, &[String])> {
    let (verb, rest) = arguments.split_first()?;
    ["bench", "demo", "pictures", "scenario", "fuzz", "sim"]
        .contains(&verb.as_str())
        .then_some((verb.as_str(), rest))
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Bench(bench) => trials::become_trial("bench", &bench.arguments),
        Verb::Ci(ci) => ci::run(ci.without_test),
        Verb::Demo(demo) => trials::become_trial("demo", &demo.arguments),
        Verb::Dist(Dist {}) => dist::run(),
        Verb::Fuzz(fuzz) => fuzz::become_driver(&fuzz.arguments),
        Verb::Sim(sim) => sim::become_simulator(&sim.arguments),
        Verb::Pictures(pictures) => trials::become_trial("pictures", &pictures.arguments),
        Verb::Scenario(scenario) => trials::become_trial("scenario", &scenario.arguments),
        Verb::Test(Test {}) => test_set::run(),
        Verb::Tidy(tidy) => tidy::run(&cargo::root(), tidy.bless_wire),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_trial_are_passed_on_as_they_are() {
        let line = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let all = line("scenario --all --short");
        assert_eq!(passed_on(&all), Some(("scenario", &all[1..])));
        let keep = line("demo --keep");
        assert_eq!(passed_on(&keep), Some(("demo", &keep[1..])));
        assert_eq!(passed_on(&line("tidy --bless-wire")), None);
        assert_eq!(passed_on(&[]), None);
    }
}
