//! Trials with real processes: the demo, the scenarios and the bench.
//!
//! `cargo xtask demo|scenario|bench` builds everything in release and starts this.

mod attackers;
mod bench;
mod churn;
mod client;
mod cluster;
mod demo;
mod fault;
mod feeder;
mod mount;
mod pictures;
mod process;
mod proxy;
mod scenario;
mod strangers;
mod viewers;
mod web_bench;
mod web_page;

use std::process::ExitCode;

use anyhow::Result;
use argh::FromArgs;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Trials of Carbontube with real processes.
#[derive(FromArgs)]
struct Trials {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Verb {
    Demo(demo::Demo),
    Scenario(scenario::Scenario),
    Bench(bench::Bench),
    Pictures(pictures::Pictures),
    Client(client::Client),
    Viewers(viewers::Viewers),
    Strangers(strangers::Strangers),
    Churn(churn::Churn),
}

fn main() -> ExitCode {
    let trials: Trials = argh::from_env();
    // These have no children, and take signals in their own way.
    let is_child = matches!(
        trials.verb,
        Verb::Client(_) | Verb::Strangers(_) | Verb::Churn(_)
    );
    if !is_child && let Err(error) = end_children_on_signals() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = match trials.verb {
        Verb::Demo(demo) => demo::run(&demo),
        Verb::Scenario(scenario) => scenario::run(&scenario),
        Verb::Bench(bench) => bench::run(&bench),
        Verb::Pictures(pictures) => pictures::run(&pictures),
        Verb::Client(client) => client::run(&client),
        Verb::Viewers(viewers) => viewers::run(&viewers),
        Verb::Strangers(strangers) => strangers::run(&strangers),
        Verb::Churn(churn) => churn::run(&churn),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The children are in groups of their own, where no Ctrl-C reaches them.
fn end_children_on_signals() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            cluster::end_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
