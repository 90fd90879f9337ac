//! The bench of the web interface: what a page costs the browser, and what pages cost the
//! pipeline. The manager, each worker and `carbontube web` are processes of their own, so
//! are the pages; the client is this one.

mod browsing;
mod load;
mod watching;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::cluster::{Cluster, Plan};

/// The parts, in the order in which they run.
const PARTS: [&str; 5] = ["paint", "lost", "smooth", "heap", "pages"];
/// The phases of the pipeline that is looked at.
const PHASES: [&str; 2] = ["first", "second"];

/// One figure with what it should be.
struct Figure {
    name: String,
    value: String,
    /// What is wanted, and whether it is met; `None` where nothing is.
    target: Option<(String, bool)>,
}

/// Everything that was measured.
#[derive(Default)]
struct Report {
    figures: Vec<Figure>,
    json: serde_json::Map<String, Value>,
}

impl Report {
    fn say(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.figures.push(Figure {
            name: name.into(),
            value: value.into(),
            target: None,
        });
    }

    fn judge(&mut self, name: impl Into<String>, value: String, target: &str, met: bool) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            target: Some((target.to_owned(), met)),
        });
    }

    fn keep(&mut self, name: &str, value: Value) {
        self.json.insert(name.to_owned(), value);
    }
}

/// Measures the parts that were asked for and prints them.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let parts: Vec<&str> = match &bench.part {
        None => PARTS.to_vec(),
        Some(part) => {
            let known = PARTS.iter().find(|known| *known == part);
            ensure!(
                known.is_some(),
                "--part {part}: parts are {}",
                PARTS.join(", ")
            );
            known.into_iter().copied().collect()
        }
    };
    let mut report = Report::default();
    for part in parts {
        eprintln!("bench: the web interface, {part}");
        match part {
            "paint" => browsing::paint(bench, &mut report)?,
            "lost" => browsing::lost(bench, &mut report)?,
            "smooth" => browsing::smooth(bench, &mut report)?,
            "heap" => browsing::heap(bench, &mut report)?,
            _ => watching::pages(bench, &mut report)?,
        }
    }
    print(bench, report);
    Ok(())
}

fn print(bench: &Bench, report: Report) {
    if bench.json {
        println!("{}", Value::Object(report.json));
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "measured", "wanted", ""]);
    for Figure {
        name,
        value,
        target,
    } in report.figures
    {
        let (wanted, verdict) = match target {
            Some((wanted, met)) => (wanted, if met { "met" } else { "NOT MET" }),
            None => (String::new(), ""),
        };
        table.add_row([name, value, wanted, verdict.to_owned()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

/// A cluster whose phases do nothing.
fn cluster(folder: &Path, bench: &Bench, timeout: Duration) -> Result<Cluster> {
    let plan = Plan {
        pipeline: "bench",
        phases: &PHASES,
        program: "scenario-phases",
        settings: "",
        storage: None,
        worker_timeout: timeout,
        history_jobs: None,
    };
    let mut cluster = Cluster::start(folder, &plan)?.without_ledgers();
    for phase in PHASES {
        cluster.add_worker(phase, bench.slots);
    }
    Ok(cluster)
}

/// The value in the middle.
fn median(values: &[f64]) -> f64 {
    at(values, 50)
}

/// The value that so many of a hundred do not pass.
fn at(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = (values.len() * percent / 100).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or(0.0)
}

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_f64).collect()
}

/// The rate of rise in a row of values at times, by least squares.
fn slope(values: &[(f64, f64)]) -> f64 {
    let n = values.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| values.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let above: f64 = values.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum();
    let below: f64 = values.iter().map(|pair| (pair.0 - x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}

fn summary(values: &[f64]) -> Value {
    json!({ "p50": median(values), "p99": at(values, 99), "max": at(values, 100) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_before_one_is_taken() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((median(&values), at(&values, 100)), (3.0, 5.0));
        assert_eq!((median(&[]), at(&[7.0], 99)), (0.0, 7.0));
    }

    #[test]
    fn slope_of_a_line_is_its_own() {
        let line: Vec<(f64, f64)> = (0..9)
            .map(|x| (f64::from(x), 3.0 - 2.0 * f64::from(x)))
            .collect();
        assert!((slope(&line) + 2.0).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 5.0)]), 0.0);
    }
}
