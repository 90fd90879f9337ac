//! `enqueue`: one job, or a file of them.

use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal, Read};
use std::time::Duration;

use carbontube_client::{
    ClientError, ClientOptions, EndedJob, JobId, NewJob, PipelineClient, PipelineName, Receipt,
};
use carbontube_protocol::message::JobState;
use carbontube_protocol::{Limits, check_instructions, is_traceparent};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::arguments::EnqueueArguments;
use super::say::say;
use super::style::harmless;
use super::{Style, block_on, client_failure, print, print_json};
use crate::duration::parse_option_duration;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// How long a pull address may take to take what it was handed.
const LINGER: Duration = Duration::from_secs(30);
/// The most jobs of a file that are waited for; their ids are kept.
const WAIT_JOBS_MAX: usize = 100_000;

pub(crate) fn enqueue(arguments: EnqueueArguments) -> Outcome<Exit> {
    let pipeline = PipelineName::new(&arguments.name)
        .map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    if arguments.file.is_some() {
        for (given, what) in [
            (arguments.instructions.is_some(), "INSTRUCTIONS"),
            (arguments.id.is_some(), "--id"),
            (arguments.traceparent.is_some(), "--traceparent"),
        ] {
            if given {
                return Err(Failure::usage(format!(
                    "{what} and --file cannot stand together"
                )));
            }
        }
        return block_on(enqueue_file(&arguments, &pipeline));
    }
    let job = single(&arguments)?;
    block_on(enqueue_one(&arguments, &pipeline, job))
}

fn single(arguments: &EnqueueArguments) -> Outcome<NewJob> {
    let text = arguments.instructions.as_deref().unwrap_or("{}");
    checked(text.as_bytes())?;
    let mut job = NewJob::from_json(text.as_bytes().to_vec());
    if let Some(id) = &arguments.id {
        job = job.with_id(job_id(id)?);
    }
    if let Some(delay) = arguments.delay {
        job = job.with_delay(delay);
    }
    if let Some(traceparent) = &arguments.traceparent {
        job = job.with_traceparent(traceparent);
    }
    Ok(job)
}

pub(crate) fn job_id(text: &str) -> Outcome<JobId> {
    JobId::new(text).map_err(|error| Failure::from_error(Exit::Usage, &error))
}

fn checked(instructions: &[u8]) -> Outcome {
    check_instructions(instructions, &Limits::default()).map_err(|error| {
        let error = ClientError::from(error);
        client_failure(&error)
    })
}

async fn connect(arguments: &EnqueueArguments) -> Outcome<PipelineClient> {
    let mut options = ClientOptions::default();
    if let Some(timeout) = arguments.timeout {
        options.connect_timeout = timeout;
        options.timeout = timeout;
    }
    let addresses = [arguments.address.clone()];
    let client = PipelineClient::connect(&addresses, options)
        .await
        .map_err(|error| client_failure(&error))?;
    if arguments.wait && !client.is_confirmed() {
        return Err(Failure::usage(format!(
            "--wait needs an api address, {} is a pull address",
            arguments.address
        ))
        .hint("give the manager's api address (--api-bind, by default port 5051)"));
    }
    Ok(client)
}

async fn enqueue_one(
    arguments: &EnqueueArguments,
    pipeline: &PipelineName,
    job: NewJob,
) -> Outcome<Exit> {
    let client = connect(arguments).await?;
    let id = job.id().clone();
    let receipt = client.enqueue(pipeline, job).await.map_err(|error| {
        let failure = client_failure(&error);
        match error {
            // Only with its id can the same job be tried again without a second one.
            ClientError::NotConfirmed { .. } => failure.hint(format!(
                "the same with --id {id} is safe: one id is one job; `carbontube job {id}` tells whether it is there"
            )),
            _ => failure,
        }
    })?;
    if arguments.wait {
        say(format_args!("{} {}", status(&receipt), receipt.id()));
        let ended = client
            .wait(pipeline, receipt.id(), arguments.timeout)
            .await
            .map_err(|error| client_failure(&error))?;
        return tell_ended(&ended, arguments.json);
    }
    if arguments.json {
        print_json(&receipt_json(&receipt))?;
    } else {
        print(&format!("{} {}\n", status(&receipt), receipt.id()))?;
    }
    let confirmed = receipt.is_confirmed();
    client
        .close(LINGER)
        .await
        .map_err(|error| client_failure(&error))?;
    if confirmed {
        return Ok(Exit::Success);
    }
    say_unconfirmed(&arguments.address.to_string());
    Ok(Exit::Unconfirmed)
}

fn say_unconfirmed(address: &str) {
    say(format_args!(
        "{} {address} is a pull address: handed over, not confirmed",
        Style::stderr().odd("note:")
    ));
    say("hint: the manager's api address (by default port 5051) confirms");
}

fn status(receipt: &Receipt) -> &'static str {
    match receipt {
        Receipt::Accepted { .. } => "accepted",
        Receipt::Duplicate { .. } => "duplicate",
        Receipt::HandedOver { .. } => "handed over",
        Receipt::Rejected { .. } => "rejected",
    }
}

fn receipt_json(receipt: &Receipt) -> serde_json::Value {
    let mut value = json!({
        "id": receipt.id(),
        "status": status(receipt).replace(' ', "_"),
        "confirmed": receipt.is_confirmed(),
    });
    match receipt {
        Receipt::Duplicate { state, .. } => value["state"] = json!(state),
        Receipt::Rejected { code, message, .. } => {
            value["code"] = json!(code);
            value["message"] = json!(message);
        }
        Receipt::Accepted { .. } | Receipt::HandedOver { .. } => {}
    }
    value
}

fn result_json(ended: &EndedJob) -> Option<&RawValue> {
    serde_json::from_slice(&ended.result).ok()
}

/// Prints a result, or an error; a success's result alone goes to stdout.
fn tell_ended(ended: &EndedJob, json: bool) -> Outcome<Exit> {
    if json {
        print_json(&json!({
            "id": ended.id,
            "state": ended.state,
            "result": result_json(ended),
            "error": ended.error,
        }))?;
    }
    match ended.state {
        Some(JobState::Success) => {
            if !json {
                match result_json(ended) {
                    Some(result) => print(&format!("{result}\n"))?,
                    None => say("the result was too large to be kept"),
                }
            }
            Ok(Exit::Success)
        }
        Some(state) => {
            let style = Style::stderr();
            let error = ended.error.clone().unwrap_or_default();
            let message = if error.message.is_empty() {
                "no reason is kept"
            } else {
                &error.message
            };
            say(format_args!(
                "{} job {} {state}: {}",
                style.bad("error:"),
                ended.id,
                harmless(message)
            ));
            for line in error.detail.lines() {
                say(format_args!("  {}", style.faint(harmless(line))));
            }
            Ok(Exit::JobFailed)
        }
        None => Err(Failure::new(
            Exit::Refused,
            format!("the manager knows no job {}", ended.id),
        )
        .hint("it may have been discarded, or its history may have passed the limit")),
    }
}

/// A line of a file in its longer form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    delay: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(borrow)]
    instructions: &'a RawValue,
}

fn line_job(line: &[u8], delay: Option<Duration>) -> Outcome<NewJob> {
    checked(line)?;
    let envelope = serde_json::from_slice::<Envelope<'_>>(line)
        .ok()
        .filter(|envelope| envelope.instructions.get().starts_with('{'));
    let Some(envelope) = envelope else {
        let job = NewJob::from_json(line.to_vec());
        return Ok(delay.map_or(job.clone(), |delay| job.with_delay(delay)));
    };
    let mut job = NewJob::from_json(envelope.instructions.get().as_bytes().to_vec());
    if let Some(id) = envelope.id {
        job = job.with_id(job_id(&id)?);
    }
    let own = envelope
        .delay
        .map(|text| parse_option_duration(&text).map_err(Failure::usage))
        .transpose()?;
    if let Some(delay) = own.or(delay) {
        job = job.with_delay(delay);
    }
    if let Some(traceparent) = envelope.traceparent {
        if !is_traceparent(&traceparent) {
            let message = format!("{traceparent:?} is no W3C traceparent");
            return Err(Failure::usage(message));
        }
        job = job.with_traceparent(traceparent);
    }
    Ok(job)
}

/// Counts of a file's jobs.
#[derive(Default)]
struct Counts {
    accepted: u64,
    duplicates: u64,
    handed_over: u64,
    rejected: u64,
}

struct Sending<'a> {
    arguments: &'a EnqueueArguments,
    name: String,
    counts: Counts,
    /// The lines of jobs that have no receipt yet: bounded by the client's window.
    lines: VecDeque<u64>,
    ids: Vec<JobId>,
    bar: ProgressBar,
}

impl Sending<'_> {
    fn take(&mut self, receipts: Vec<Receipt>) -> Outcome {
        for receipt in receipts {
            let line = self.lines.pop_front().unwrap_or_default();
            self.bar.inc(1);
            match &receipt {
                Receipt::Accepted { .. } => self.counts.accepted += 1,
                Receipt::Duplicate { .. } => self.counts.duplicates += 1,
                Receipt::HandedOver { .. } => self.counts.handed_over += 1,
                Receipt::Rejected { code, message, .. } => {
                    self.counts.rejected += 1;
                    let name = &self.name;
                    self.bar.suspend(|| {
                        say(format_args!(
                            "error: {name}:{line}: {} ({code})",
                            harmless(message)
                        ));
                    });
                }
            }
            if self.arguments.wait && receipt.is_confirmed() {
                if self.ids.len() == WAIT_JOBS_MAX {
                    return Err(Failure::usage(format!(
                        "--wait with --file waits for at most {WAIT_JOBS_MAX} jobs"
                    ))
                    .hint("enqueue without --wait and look with `carbontube stats`"));
                }
                self.ids.push(receipt.id().clone());
            } else if self.arguments.json && !self.arguments.wait {
                print_json(&receipt_json(&receipt))?;
            }
        }
        Ok(())
    }
}

fn open(path: &str) -> Outcome<Box<dyn BufRead>> {
    if path == "-" {
        return Ok(Box::new(std::io::BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).map_err(|error| {
        Failure::from_error(Exit::Usage, &error).context(format!("cannot read {path}"))
    })?;
    Ok(Box::new(std::io::BufReader::with_capacity(1 << 16, file)))
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {human_pos} jobs enqueued, {per_sec}, {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}

async fn enqueue_file(arguments: &EnqueueArguments, pipeline: &PipelineName) -> Outcome<Exit> {
    let path = arguments.file.as_deref().unwrap_or("-");
    let mut reader = open(path)?;
    let client = connect(arguments).await?;
    let mut enqueuer = client.enqueuer(pipeline);
    let mut sending = Sending {
        arguments,
        name: if path == "-" { "stdin" } else { path }.to_owned(),
        counts: Counts::default(),
        lines: VecDeque::new(),
        ids: Vec::new(),
        bar: progress_bar(),
    };
    let name = sending.name.clone();
    // Room for the longer form around instructions of the largest size.
    let line_max = Limits::default().instructions_bytes_max + (64 << 10);
    let mut wrong = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = (&mut reader)
            .take(line_max as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| {
                Failure::from_error(Exit::Failure, &error).context(format!("cannot read {name}"))
            })?;
        if read == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let job = if line.len() > line_max {
            Err(Failure::usage(format!(
                "the line is longer than {line_max} bytes"
            )))
        } else {
            line_job(text, arguments.delay)
        };
        match job {
            Ok(job) => {
                sending.lines.push_back(number);
                enqueuer
                    .add(job)
                    .await
                    .map_err(|error| client_failure(&error))?;
                sending.take(enqueuer.take_receipts())?;
            }
            Err(failure) => {
                wrong = Some(failure.context(format!("{name}:{number}: this line is no job")));
                break;
            }
        }
    }
    // What came before a wrong line is enqueued all the same: say so, do not guess.
    enqueuer
        .flush()
        .await
        .map_err(|error| client_failure(&error))?;
    sending.take(enqueuer.take_receipts())?;
    sending.bar.finish_and_clear();
    say_counts(&sending.counts);
    if let Some(failure) = wrong {
        return Err(failure.hint("the lines before it were enqueued, those after it were not"));
    }
    if sending.counts.rejected > 0 {
        return Err(Failure::new(
            Exit::Refused,
            format!("{} jobs were rejected", sending.counts.rejected),
        ));
    }
    if arguments.wait {
        return wait_for_all(&client, pipeline, sending.ids, arguments).await;
    }
    let unconfirmed = sending.counts.handed_over > 0;
    client
        .close(LINGER)
        .await
        .map_err(|error| client_failure(&error))?;
    if unconfirmed {
        say_unconfirmed(&arguments.address.to_string());
        return Ok(Exit::Unconfirmed);
    }
    Ok(Exit::Success)
}

fn say_counts(counts: &Counts) {
    let mut parts = vec![format!("{} accepted", counts.accepted)];
    for (count, what) in [
        (counts.duplicates, "duplicates"),
        (counts.handed_over, "handed over"),
        (counts.rejected, "rejected"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    say(parts.join(", "));
}

/// Prints one JSON line for each job as it ends.
async fn wait_for_all(
    client: &PipelineClient,
    pipeline: &PipelineName,
    ids: Vec<JobId>,
    arguments: &EnqueueArguments,
) -> Outcome<Exit> {
    let total = ids.len();
    let mut stream = client
        .wait_all(pipeline, ids)
        .map_err(|error| client_failure(&error))?;
    let mut failed = 0_usize;
    let all = async {
        while let Some(ended) = stream.next().await {
            let ended = ended.map_err(|error| client_failure(&error))?;
            if ended.state != Some(JobState::Success) {
                failed += 1;
            }
            print_json(&json!({
                "id": ended.id,
                "state": ended.state,
                "result": result_json(&ended),
                "error": ended.error,
            }))?;
        }
        Ok(())
    };
    match arguments.timeout {
        None => all.await?,
        Some(timeout) => async_std::future::timeout(timeout, all)
            .await
            .map_err(|_| {
                Failure::new(Exit::Timeout, "not all jobs ended in time")
                    .hint("they are safe in the manager's journal")
            })??,
    }
    if failed > 0 {
        return Err(Failure::new(
            Exit::JobFailed,
            format!("{failed} of {total} jobs did not succeed"),
        ));
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_lines_are_told_from_instructions() {
        let plain = line_job(b"{\"instructions\": 3}", None).expect("instructions");
        assert_eq!(plain.instructions_bytes(), 19);
        let long = line_job(b"{\"id\": \"a\", \"instructions\": {}}", None).expect("a job");
        assert_eq!(long.id().to_string(), "a");
        assert_eq!(long.instructions_bytes(), 2);
        let other = line_job(b"{\"id\": \"a\", \"video\": {}}", None).expect("instructions");
        assert_ne!(other.id().to_string(), "a");
    }

    #[test]
    fn lines_that_are_no_objects_are_refused() {
        for line in ["[1]", "{", "3", "{\"a\": 1} {}"] {
            assert!(line_job(line.as_bytes(), None).is_err(), "{line}");
        }
    }
}
