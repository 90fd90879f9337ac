//! `/metrics`: the text format of Prometheus, by its conventions for names and units.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use carbontube_protocol::message::{Histogram, Latencies, ManagerState, WorkerStatus};

use crate::api::App;
use crate::request::Response;
use crate::state::Reach;

/// The upper ends of the buckets in seconds: a log-linear histogram is finer than a
/// time-series database wants to keep.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
    3600.0,
];

/// Metrics by name, each with its samples.
#[derive(Default)]
struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

struct Family {
    kind: &'static str,
    help: &'static str,
    samples: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn put_labels(out: &mut String, labels: Labels<'_>) {
    if labels.is_empty() {
        return;
    }
    out.push('{');
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push('}');
}

impl Exposition {
    fn family(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
    ) -> &mut Family {
        self.families.entry(name).or_insert(Family {
            kind,
            help,
            samples: String::new(),
        })
    }

    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: impl Display,
    ) {
        self.family(name, "gauge", help)
            .sample(name, "", labels, value);
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: impl Display,
    ) {
        self.family(name, "counter", help)
            .sample(name, "", labels, value);
    }

    fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        histogram: &Histogram,
    ) {
        let family = self.family(name, "histogram", help);
        for bound in BUCKETS {
            let micros = bound * 1e6;
            #[expect(clippy::cast_precision_loss, reason = "buckets are known to an eighth")]
            let within = histogram
                .buckets
                .iter()
                .filter(|(end, _)| *end as f64 <= micros * 1.000_001);
            let count: u64 = within.map(|(_, count)| count).sum();
            let bound = bound.to_string();
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", &bound));
            family.sample(name, "_bucket", &with_bound, count);
        }
        let mut with_bound = labels.to_vec();
        with_bound.push(("le", "+Inf"));
        family.sample(name, "_bucket", &with_bound, histogram.count);
        #[expect(clippy::cast_precision_loss, reason = "a sum for averages")]
        let sum = histogram.sum_us as f64 / 1e6;
        family.sample(name, "_sum", labels, sum);
        family.sample(name, "_count", labels, histogram.count);
    }

    fn text(self) -> String {
        let mut out = String::new();
        for (name, family) in self.families {
            let _ = writeln!(out, "# HELP {name} {}", family.help);
            let _ = writeln!(out, "# TYPE {name} {}", family.kind);
            out.push_str(&family.samples);
        }
        out
    }
}

impl Family {
    fn sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>, value: impl Display) {
        self.samples.push_str(name);
        self.samples.push_str(suffix);
        put_labels(&mut self.samples, labels);
        let _ = writeln!(self.samples, " {value}");
    }
}

/// All metrics of all managers.
pub(crate) async fn metrics(app: &App) -> Response {
    let mut out = Exposition::default();
    out.gauge(
        "carbontube_web_info",
        "The version of the web interface.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    out.gauge(
        "carbontube_web_pages",
        "Pages with an open event stream.",
        &[],
        app.pages.load(std::sync::atomic::Ordering::Relaxed),
    );
    out.counter(
        "carbontube_web_wrong_tokens_total",
        "Requests that showed a wrong token.",
        &[],
        app.access.brake.count(),
    );
    out.counter(
        "carbontube_web_connections_refused_total",
        "Connections that got no place for more than a health check.",
        &[],
        app.places.refused(),
    );
    for view in &app.hub.views {
        let latencies = match app.client(view).await {
            Ok(client) if view.lock().reach() == Reach::Live => client.latencies().await.ok(),
            _ => None,
        };
        let state = view.lock();
        let address = view.address.to_string();
        let name = state.key.clone();
        let pipeline = ("pipeline", name.as_str());
        let up = u8::from(state.reach() == Reach::Live);
        out.gauge(
            "carbontube_up",
            "Whether the manager answers.",
            &[("api", &address), pipeline],
            up,
        );
        if let Some(age) = state.age_ms() {
            #[expect(clippy::cast_precision_loss, reason = "an age for display")]
            let age = age as f64 / 1e3;
            out.gauge(
                "carbontube_snapshot_age_seconds",
                "How old the numbers of this manager are.",
                &[pipeline],
                age,
            );
        }
        // A lost manager's numbers are not passed off as today's.
        if up == 0 {
            continue;
        }
        if let Some(info) = &state.info {
            let epoch = info.epoch.to_string();
            out.gauge(
                "carbontube_manager_info",
                "Which manager serves the pipeline.",
                &[pipeline, ("version", &info.version), ("epoch", &epoch)],
                1,
            );
            #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
            let started = info.started_at.as_micros() as f64 / 1e6;
            out.gauge(
                "carbontube_manager_start_time_seconds",
                "When the manager started, in seconds since 1970.",
                &[pipeline],
                started,
            );
        }
        put_stats(&mut out, &state, pipeline);
        if let Some(latencies) = &latencies {
            put_latencies(&mut out, latencies, pipeline);
        }
    }
    Response::text("text/plain; version=0.0.4; charset=utf-8", out.text())
}

fn put_latencies(out: &mut Exposition, latencies: &Latencies, pipeline: (&str, &str)) {
    out.histogram(
        "carbontube_job_duration_seconds",
        "From being accepted to having gone through all phases.",
        &[pipeline],
        &latencies.total,
    );
    for phase in &latencies.phases {
        let labels = [pipeline, ("phase", phase.job_type.as_str())];
        out.histogram(
            "carbontube_attempt_duration_seconds",
            "How long attempts ran.",
            &labels,
            &phase.duration,
        );
        out.histogram(
            "carbontube_wait_duration_seconds",
            "How long jobs waited for a worker.",
            &labels,
            &phase.wait,
        );
    }
}

fn put_stats(out: &mut Exposition, state: &crate::state::ViewState, pipeline: (&str, &str)) {
    let Some(stats) = &state.stats else { return };
    for (name, is) in [
        ("adopting", ManagerState::Adopting),
        ("running", ManagerState::Running),
        ("paused", ManagerState::Paused),
        ("impaired", ManagerState::Impaired),
        ("draining", ManagerState::Draining),
    ] {
        out.gauge(
            "carbontube_manager_state",
            "1 for the state that the manager is in.",
            &[pipeline, ("state", name)],
            u8::from(stats.state == is),
        );
    }
    out.counter(
        "carbontube_jobs_enqueued_total",
        "Jobs accepted since the journal began.",
        &[pipeline],
        stats.enqueued,
    );
    for (outcome, count) in [("success", stats.success), ("cancelled", stats.cancelled)] {
        out.counter(
            "carbontube_jobs_ended_total",
            "Jobs that ended since the journal began.",
            &[pipeline, ("outcome", outcome)],
            count,
        );
    }
    for (cause, count) in &stats.rerun_causes {
        out.counter(
            "carbontube_attempts_rerun_total",
            "Attempts that may have run a second time: one that may have begun was given up and its job handed out again.",
            &[pipeline, ("cause", cause)],
            count,
        );
    }
    for (cause, count) in &stats.duplicate_causes {
        out.counter(
            "carbontube_attempts_duplicate_total",
            "Attempts that ran although another one of the same phase also ended.",
            &[pipeline, ("cause", cause)],
            count,
        );
    }
    for phase in &stats.phases {
        let name = ("phase", phase.job_type.as_str());
        for (state, count) in [
            ("enqueued", phase.enqueued),
            ("scheduled", phase.scheduled),
            ("running", phase.running),
            ("failed", phase.failed),
        ] {
            out.gauge(
                "carbontube_jobs",
                "Jobs at a phase by their state.",
                &[pipeline, name, ("state", state)],
                count,
            );
        }
        let oldest = phase
            .oldest_at
            .map_or(0.0, |at| stats.at.since(at).as_secs_f64());
        out.gauge(
            "carbontube_oldest_wait_seconds",
            "How long the oldest waiting job has waited.",
            &[pipeline, name],
            oldest,
        );
        out.gauge(
            "carbontube_phase_paused",
            "Whether the phase is paused.",
            &[pipeline, name],
            u8::from(phase.paused),
        );
        out.gauge(
            "carbontube_slots",
            "Slots of the workers that take work.",
            &[pipeline, name],
            phase.slots,
        );
        out.counter(
            "carbontube_attempts_succeeded_total",
            "Attempts that succeeded.",
            &[pipeline, name],
            phase.done,
        );
        for (kind, count) in &phase.failures {
            let kind = kind.to_string().replace(' ', "_");
            out.counter(
                "carbontube_attempts_failed_total",
                "Attempts that failed, by the kind of failure.",
                &[pipeline, name, ("kind", &kind)],
                count,
            );
        }
    }
    put_workers(out, state, pipeline);
    let journal = &stats.journal;
    for (kind, bytes) in [("pages", journal.page_bytes), ("disk", journal.disk_bytes)] {
        out.gauge(
            "carbontube_journal_bytes",
            "Bytes of the journal: in its pages, and on disk.",
            &[pipeline, ("kind", kind)],
            bytes,
        );
    }
    out.gauge(
        "carbontube_journal_trouble",
        "Whether the journal cannot be written.",
        &[pipeline],
        u8::from(journal.trouble.is_some()),
    );
    out.counter(
        "carbontube_journal_commits_total",
        "Commits to the journal.",
        &[pipeline],
        journal.commits,
    );
    for (name, count) in &stats.counters {
        out.counter(
            "carbontube_incidents_total",
            "What was refused, dropped or odd, by name.",
            &[pipeline, ("name", name)],
            count,
        );
    }
}

fn put_workers(out: &mut Exposition, state: &crate::state::ViewState, pipeline: (&str, &str)) {
    let mut counts: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for phase in state.stats.iter().flat_map(|stats| &stats.phases) {
        for status in ["available", "connecting", "draining", "lost"] {
            counts.insert((phase.job_type.to_string(), status), 0);
        }
    }
    for (worker, _) in state.workers.values() {
        let status = match worker.status {
            WorkerStatus::Available => "available",
            WorkerStatus::Connecting => "connecting",
            WorkerStatus::Draining => "draining",
            WorkerStatus::Lost => "lost",
            WorkerStatus::Gone => continue,
        };
        *counts
            .entry((worker.job_type.to_string(), status))
            .or_default() += 1;
    }
    for ((phase, status), count) in counts {
        out.gauge(
            "carbontube_workers",
            "Workers of a phase by what the manager makes of them.",
            &[pipeline, ("phase", &phase), ("status", status)],
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        put_labels(&mut out, &[("a", "x\\y\"z\nä"), ("b", "")]);
        assert_eq!(out, "{a=\"x\\\\y\\\"z\\nä\",b=\"\"}");
    }
}
