//! What open pages cost the pipeline: rounds without and with them take turns.

use std::time::Duration;

use anyhow::{Result, ensure};
use carbontube_tests::Process;
use serde_json::json;

use super::{Report, cluster, median};
use crate::bench::{Bench, folder, run_jobs};
use crate::cluster::{WORKER_TIMEOUT, binaries};
use crate::process::processor_time;
use crate::web_page::Page;

/// How many pages are open.
const PAGES: usize = 20;
/// Jobs offered in a second, where they are not enqueued as fast as they are taken.
const OFFERED: f64 = 20_000.0;
/// How much of the throughput pages may cost.
const LOSS_MAX: f64 = 0.05;

/// Who looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Nobody,
    /// The web interface, without a page.
    Web,
    /// It and [`PAGES`] pages.
    Pages,
}

impl Audience {
    const ALL: [Audience; 3] = [Audience::Nobody, Audience::Web, Audience::Pages];

    fn name(self) -> String {
        match self {
            Audience::Nobody => "nobody looks on".to_owned(),
            Audience::Web => "the web interface, no page".to_owned(),
            Audience::Pages => format!("the web interface, {PAGES} pages"),
        }
    }
}

pub(super) fn pages(bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = folder()?;
    let mut cluster = cluster(folder.path(), bench, WORKER_TIMEOUT)?;
    let client = cluster.client()?;
    let mut done = 0;
    let mut run = |cluster: &_, jobs: usize, rate| -> Result<f64> {
        let took = run_jobs(cluster, &client, jobs, done, rate)?;
        done += jobs as u64;
        Ok(jobs as f64 / took.as_secs_f64())
    };
    // The history is full from here on, so that every round costs the same.
    run(&cluster, bench.jobs, None)?;
    for (kind, rate) in [("offered", Some(OFFERED)), ("full", None)] {
        let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
        for round in 1..=bench.rounds {
            for turn in 0..Audience::ALL.len() {
                // Each is the first as often as the others.
                let place = (round + turn) % Audience::ALL.len();
                let audience = Audience::ALL[place];
                let page = (audience != Audience::Nobody).then(|| Page::open(&cluster));
                let mut viewers = match (&page, audience) {
                    (Some(page), Audience::Pages) => Some(viewers(&cluster, page)),
                    _ => None,
                };
                let processes = [
                    Some(cluster.manager().id()),
                    page.as_ref().map(|page| page.process().id()),
                    viewers.as_ref().map(Process::id),
                ];
                let before = used(processes)?;
                let jobs_s = run(&cluster, bench.jobs, rate)?;
                let after = used(processes)?;
                ensure!(
                    viewers.as_mut().is_none_or(Process::is_running),
                    "a page was cut off"
                );
                let thousands = bench.jobs as f64 / 1e3;
                let cost = [0, 1, 2].map(|index| {
                    let spent = after[index].saturating_sub(before[index]);
                    spent.as_secs_f64() * 1e3 / thousands
                });
                let found = Round { jobs_s, cost };
                eprintln!(
                    "bench: {kind}, round {round}, {}: {}",
                    audience.name(),
                    found.told()
                );
                rounds[place].push(found);
            }
        }
        let title = match rate {
            Some(rate) => format!("{rate:.0} jobs/s offered"),
            None => "as fast as they are taken".to_owned(),
        };
        let middle = rounds.each_ref().map(|rounds| Round::median(rounds));
        for (place, audience) in Audience::ALL.into_iter().enumerate() {
            let name = format!("{title}: {}", audience.name());
            let value = middle[place].told();
            if audience == Audience::Pages {
                let change = middle[place].jobs_s / middle[0].jobs_s - 1.0;
                let value = format!("{value}; {:+.1} %", 100.0 * change);
                report.judge(name, value, "not below -5 %", -change < LOSS_MAX);
            } else {
                report.say(name, value);
            }
            let all = rounds[place].iter();
            let all: Vec<_> = all
                .map(|round| json!({ "jobs_per_second": round.jobs_s, "ms_of_processor_for_1000_jobs": round.cost }))
                .collect();
            report.keep(
                &format!("pages_{kind}_{audience:?}").to_lowercase(),
                json!(all),
            );
        }
    }
    Ok(())
}

/// What one round gave.
struct Round {
    jobs_s: f64,
    /// Milliseconds of a processor for a thousand jobs, of the manager, of the web interface
    /// and of the pages. Other work on the machine changes it little.
    cost: [f64; 3],
}

impl Round {
    fn median(rounds: &[Round]) -> Round {
        let of = |value: fn(&Round) -> f64| {
            let values: Vec<f64> = rounds.iter().map(value).collect();
            median(&values)
        };
        Round {
            jobs_s: of(|round| round.jobs_s),
            cost: [
                of(|round| round.cost[0]),
                of(|round| round.cost[1]),
                of(|round| round.cost[2]),
            ],
        }
    }

    fn told(&self) -> String {
        let [manager, web, pages] = self.cost;
        format!(
            "{:.0} jobs/s; ms for 1,000 jobs: manager {manager:.1}, web {web:.1}, pages {pages:.1}",
            self.jobs_s
        )
    }
}

/// The processor time of some processes.
fn used(processes: [Option<u32>; 3]) -> Result<[Duration; 3]> {
    let mut used = [Duration::ZERO; 3];
    for (used, process) in used.iter_mut().zip(processes) {
        if let Some(process) = process {
            *used = processor_time(process)?;
        }
    }
    Ok(used)
}

fn viewers(cluster: &crate::cluster::Cluster, page: &Page) -> Process {
    let program = binaries().join("trials");
    let (url, count) = (page.url(), PAGES.to_string());
    let arguments = ["viewers", "--url", &url, "--count", &count];
    Process::start_program(cluster.folder(), &program, &arguments)
}
