//! The command line of the simulator: see `cargo xtask sim --help`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use argh::FromArgs;
use carbontube_mutation::Mutation;
use carbontube_sim::parameters::Parameters;
use carbontube_sim::runner::{self, Plan, Summary};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs whole pipelines in virtual time, with every fault that can be thought of, and checks
/// after each step that what must hold holds. A seed that fails replays exactly.
#[derive(FromArgs)]
struct Sim {
    /// one seed: prints its parameters, runs it twice, and compares
    #[argh(option)]
    seed: Option<u64>,
    /// so many seeds (1000)
    #[argh(option)]
    seeds: Option<u64>,
    /// as many seeds as fit in so many minutes
    #[argh(option)]
    minutes: Option<f64>,
    /// the first of the seeds (1)
    #[argh(option, default = "1")]
    from: u64,
    /// print every line of what happens in the one seed
    #[argh(switch)]
    trace: bool,
    /// a deliberate fault to find
    #[argh(option)]
    mutation: Option<String>,
    /// find every deliberate fault, and print the table
    #[argh(switch)]
    mutations: bool,
    /// go on after a failure, and list all
    #[argh(switch)]
    keep_going: bool,
    /// how many worlds at a time (as many as there are cores)
    #[argh(option)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let sim: Sim = argh::from_env();
    match run(&sim) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was as it must be.
fn run(sim: &Sim) -> Result<bool> {
    let mutation = match &sim.mutation {
        Some(name) => Some(named(name)?),
        None => None,
    };
    if let Some(seed) = sim.seed {
        return Ok(run_one(seed, sim.trace, mutation));
    }
    runner::keep_panics();
    if sim.mutations {
        return Ok(find_all(sim));
    }
    let plan = plan(sim, mutation);
    let bar = bar(&plan, sim.minutes.is_some());
    let summary = runner::run(&plan, &|_| bar.inc(1));
    bar.finish_and_clear();
    print_summary(&summary);
    for (seed, violation) in &summary.failures {
        println!("seed {seed} failed: {}", shortened(&violation.to_string()));
        let with = sim
            .mutation
            .as_ref()
            .map_or(String::new(), |name| format!(" --mutation {name}"));
        println!("  replay: cargo xtask sim --seed {seed}{with} --trace");
    }
    Ok(summary.failures.is_empty() != mutation.is_some())
}

fn named(name: &str) -> Result<Mutation> {
    Mutation::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Mutation::ALL
            .iter()
            .map(|mutation| mutation.name())
            .collect();
        anyhow!(
            "there is no deliberate fault {name}; there are {}",
            names.join(", ")
        )
    })
}

fn plan(sim: &Sim, mutation: Option<Mutation>) -> Plan {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Plan {
        first: match mutation {
            Some(mutation) => runner::finders(mutation),
            None => runner::regressions(),
        },
        from: sim.from,
        seeds: sim.seeds.unwrap_or(1000),
        until: sim
            .minutes
            .map(|minutes| Instant::now() + Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
        threads: sim.threads.unwrap_or(cores),
        mutation,
        keep_going: sim.keep_going,
    }
}

fn bar(plan: &Plan, timed: bool) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    if timed {
        return ProgressBar::new_spinner();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} to go");
    let all = plan.seeds + plan.first.len() as u64;
    ProgressBar::new(all).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Runs one seed twice; whether nothing failed and both runs were the same.
fn run_one(seed: u64, trace: bool, mutation: Option<Mutation>) -> bool {
    println!("{}", Parameters::draw(seed));
    let outcome = runner::run_seed(seed, trace, mutation);
    println!(
        "{} steps, {:.3} s of virtual time, hash {:016x}",
        outcome.steps,
        outcome.lasted.as_secs_f64(),
        outcome.hash
    );
    for (name, count) in outcome.counts.iter() {
        println!("{count:>8}  {name}");
    }
    let again = runner::run_seed(seed, false, mutation);
    let same = again.hash == outcome.hash;
    if !same {
        println!("a second run was another one: hash {:016x}", again.hash);
    }
    match outcome.violation {
        None => println!("all held"),
        Some(violation) => {
            println!("FAILED {violation}");
            return false;
        }
    }
    same
}

/// Finds each deliberate fault; whether all were found.
fn find_all(sim: &Sim) -> bool {
    let mut all = true;
    println!("| deliberate fault | found by | at seed | seeds run |");
    println!("|---|---|---|---|");
    for mutation in Mutation::ALL {
        let plan = plan(sim, Some(mutation));
        let summary = runner::run(&plan, &|_| {});
        match summary.failures.first() {
            // It must be the fault that was found.
            Some((seed, _)) if runner::run_seed(*seed, false, None).violation.is_some() => {
                all = false;
                let name = mutation.name();
                println!("| {name} | NOT FOUND: fails without it too | {seed} | |");
            }
            Some((seed, violation)) => println!(
                "| {} | {} | {seed} | {} |",
                mutation.name(),
                violation.invariant,
                summary.worlds
            ),
            None => {
                all = false;
                println!("| {} | NOT FOUND | | {} |", mutation.name(), summary.worlds);
            }
        }
    }
    all
}

fn print_summary(summary: &Summary) {
    let seconds = summary.took.as_secs_f64().max(0.001);
    println!(
        "{} worlds in {seconds:.1} s: {:.1} a second, {} steps, {:.1} h of virtual time",
        summary.worlds,
        summary.worlds as f64 / seconds,
        summary.steps,
        summary.lasted.as_secs_f64() / 3600.0
    );
    println!(
        "the slowest was seed {} with {:.2} s",
        summary.slowest.1,
        summary.slowest.0.as_secs_f64()
    );
    for (name, count) in summary.counts.iter() {
        println!("{count:>10}  {name}");
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 600;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
