//! The command line as argh reads it. Every text here is what users see.

use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
use carbontube_protocol::{Address, is_traceparent};

use crate::duration::parse_option_duration;

/// Marks a message of ours inside what argh makes of it.
pub(crate) const MARK: char = '\u{1}';

fn address(text: &str) -> Result<Address, String> {
    text.parse::<Address>()
        .map_err(|error| format!("{MARK}{error}\nhint: {}", error.hint()))
}

fn dialled(text: &str) -> Result<Address, String> {
    let address = address(text)?;
    match address.check_connectable() {
        Ok(()) => Ok(address),
        Err(error) => Err(format!("{MARK}{error}\nhint: {}", error.hint())),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_option_duration(text).map_err(|problem| format!("{MARK}{problem}"))
}

/// A host and a port to listen on.
fn listen(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some((host.to_owned(), port.parse().ok()?))
    });
    parts.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        format!("{MARK}{text:?} is no host and port\nhint: write it as 127.0.0.1:5000")
    })
}

fn traceparent(text: &str) -> Result<String, String> {
    if is_traceparent(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{MARK}{text:?} is no W3C traceparent\nhint: one is VERSION-TRACE_ID-PARENT_ID-FLAGS, such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ))
}

/// Distributed job pipelines without a broker.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(note = "Exit codes:
  0    done
  1    failed in another way
  2    the command line is not right
  3    the pipeline file is not right, or has no such pipeline or phase
  4    jobs were handed over, but a pull address confirms nothing
  5    the manager refused, or knows no such job or worker
  6    a job that was waited for failed or was cancelled
  7    nobody answered in time
  8    the journal is damaged, in use or cannot be opened
  9    it hung and ended itself, so that it can be started again
  130  a second signal ended it before it was done")]
pub(crate) struct Arguments {
    #[argh(subcommand)]
    pub(crate) command: Command,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub(crate) enum Command {
    Pipeline(PipelineArguments),
    Phase(PhaseArguments),
    Bundle(BundleArguments),
    Web(WebArguments),
    Enqueue(EnqueueArguments),
    Streamer(StreamerArguments),
    Forwarder(ForwarderArguments),
    Check(CheckArguments),
    Jobs(JobsArguments),
    Job(JobArguments),
    Workers(WorkersArguments),
    Stats(StatsArguments),
    Retry(RetryArguments),
    Cancel(CancelArguments),
    Discard(DiscardArguments),
    Pause(PauseArguments),
    Resume(ResumeArguments),
    Drain(DrainArguments),
    Tail(TailArguments),
    Top(TopArguments),
    Journal(JournalArguments),
    Version(VersionArguments),
    Completions(CompletionsArguments),
}

macro_rules! manager_arguments {
    ($(#[$meta:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$meta])*
        pub(crate) struct $name {
            /// the TOML file with the pipeline
            #[argh(positional)]
            pub(crate) file: String,
            /// the pipeline's name in the file
            #[argh(positional)]
            pub(crate) name: String,
            /// where results and unconfirmed jobs come in (default tcp://127.0.0.1:5050, unless --pull-connect is given)
            #[argh(option, arg_name = "address", from_str_fn(address))]
            pub(crate) pull_bind: Vec<Address>,
            /// where workers' events come in (default port 6000 of the same host, unless --sub-connect is given)
            #[argh(option, arg_name = "address", from_str_fn(address))]
            pub(crate) sub_bind: Vec<Address>,
            /// where clients ask and enqueue with confirmation (default port 5051 of --pull-bind's host; any free port when --pull-bind has no port)
            #[argh(option, arg_name = "address", from_str_fn(address))]
            pub(crate) api_bind: Vec<Address>,
            /// where the manager's events go out (default port 6001 of --pull-bind's host; any free port when --pull-bind has no port)
            #[argh(option, arg_name = "address", from_str_fn(address))]
            pub(crate) pub_bind: Vec<Address>,
            /// a streamer's pushing side to take results from; repeatable
            #[argh(option, arg_name = "address", from_str_fn(dialled))]
            pub(crate) pull_connect: Vec<Address>,
            /// a forwarder's publishing side to take events from; repeatable
            #[argh(option, arg_name = "address", from_str_fn(dialled))]
            pub(crate) sub_connect: Vec<Address>,
            /// where the journal is: sled:PATH, redis://HOST:PORT/DB or memory: (default the file's, else sled:./carbontube-journal/NAME)
            #[argh(option, arg_name = "uri")]
            pub(crate) storage: Option<String>,
            /// after how much silence a worker is lost (default 5s)
            #[argh(option, arg_name = "duration", from_str_fn(duration))]
            pub(crate) worker_timeout: Option<Duration>,
            /// how long a restarted manager waits for workers to say what they still run (default 3s)
            #[argh(option, arg_name = "duration", from_str_fn(duration))]
            pub(crate) adoption_grace: Option<Duration>,
            /// how many ended jobs are kept for lookups (default 100000)
            #[argh(option, arg_name = "count")]
            pub(crate) history_jobs: Option<u64>,
            /// how long ended jobs are kept for lookups (default 7d)
            #[argh(option, arg_name = "duration", from_str_fn(duration))]
            pub(crate) history_age: Option<Duration>,
            /// the most jobs that have not ended (default 10000000)
            #[argh(option, arg_name = "count")]
            pub(crate) live_jobs_max: Option<u64>,
            /// the most bytes that jobs that have not ended hold in the journal (default 17179869184)
            #[argh(option, arg_name = "bytes")]
            pub(crate) live_bytes_max: Option<u64>,
            /// the largest instructions of a job in bytes (default 16777216)
            #[argh(option, arg_name = "bytes")]
            pub(crate) instructions_bytes_max: Option<usize>,
            /// a file to write the addresses to, as JSON, once all is ready
            #[argh(option, arg_name = "path")]
            pub(crate) ready_file: Option<String>,
            $($more)*
        }
    };
}

manager_arguments! {
    /// Run the manager of a pipeline.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "pipeline")]
    PipelineArguments {}
}

manager_arguments! {
    /// Run a pipeline whole: its manager and all its phases in one process.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "bundle")]
    BundleArguments {
        /// how many jobs each phase runs at once (default the file's, else the processors)
        #[argh(option, arg_name = "count")]
        pub(crate) concurrency: Option<u32>,
        /// show the pipeline in a browser at this host and port, such as 127.0.0.1:5000
        #[argh(option, arg_name = "host:port", from_str_fn(listen))]
        pub(crate) web: Option<(String, u16)>,
        /// a file with the token that --web asks for
        #[argh(option, arg_name = "path")]
        pub(crate) web_token_file: Option<String>,
    }
}

/// Show pipelines in a browser, and answer programs over HTTP.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "web")]
pub(crate) struct WebArguments {
    /// the host to listen on (default 127.0.0.1)
    #[argh(
        option,
        short = 'H',
        arg_name = "host",
        default = "String::from(\"127.0.0.1\")"
    )]
    pub(crate) host: String,
    /// the port to listen on, 0 for any free one (default 5000)
    #[argh(option, short = 'p', arg_name = "port", default = "5000")]
    pub(crate) port: u16,
    /// a manager's api address; repeatable, one for each pipeline (default tcp://127.0.0.1:5051)
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) api_connect: Vec<Address>,
    /// a manager's pub address, instead of asking the managers; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) sub_connect: Vec<Address>,
    /// refuse every change
    #[argh(switch)]
    pub(crate) read_only: bool,
    /// a file with the token that browsers and programs must show
    #[argh(option, arg_name = "path")]
    pub(crate) token_file: Option<String>,
    /// a further name under which browsers may reach this; repeatable
    #[argh(option, arg_name = "name")]
    pub(crate) allow_host: Vec<String>,
    /// the shortest time between two messages to a page (default 250ms)
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) pace: Option<Duration>,
    /// a file to write the address to, as JSON, once all is ready
    #[argh(option, arg_name = "path")]
    pub(crate) ready_file: Option<String>,
}

/// Run a worker for one phase.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "phase")]
pub(crate) struct PhaseArguments {
    /// the TOML file with the phase
    #[argh(positional)]
    pub(crate) file: String,
    /// the phase's name in the file
    #[argh(positional)]
    pub(crate) job_type: String,
    /// how many jobs it runs at once (default the file's, else the processors)
    #[argh(option, arg_name = "count")]
    pub(crate) concurrency: Option<u32>,
    /// where jobs come in (default any free port on every interface)
    #[argh(option, arg_name = "address", from_str_fn(address))]
    pub(crate) pull_bind: Vec<Address>,
    /// a streamer's pushing side to take jobs from; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) pull_connect: Vec<Address>,
    /// where results go: a manager's --pull-bind or a streamer; repeatable (default tcp://127.0.0.1:5050)
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) push_connect: Vec<Address>,
    /// where events go: a manager's --sub-bind or a forwarder; repeatable (default tcp://127.0.0.1:6000)
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) pub_connect: Vec<Address>,
    /// the address to tell managers, when they reach this worker by another one
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) advertise: Option<Address>,
    /// how long an attempt may run; goes before the file's
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) timeout: Option<Duration>,
    /// how long running jobs may go on when the worker drains (default 30s)
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) grace: Option<Duration>,
    /// a file to write the address to, as JSON, once all is ready
    #[argh(option, arg_name = "path")]
    pub(crate) ready_file: Option<String>,
}

/// Enqueue one job, or many from a file.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "enqueue",
    note = "An api address (port 5051 by default) confirms: `accepted` means that the job is in the durable journal. A pull address (5050) takes jobs without confirming; the exit code is 4 then.",
    note = "Lines of --file are instructions, or {{\"id\": …, \"delay\": \"10s\", \"traceparent\": …, \"instructions\": {{…}}}} with no other keys."
)]
pub(crate) struct EnqueueArguments {
    /// the manager's api or pull address
    #[argh(positional, from_str_fn(dialled))]
    pub(crate) address: Address,
    /// the pipeline's name
    #[argh(positional)]
    pub(crate) name: String,
    /// a JSON object (default {})
    #[argh(positional)]
    pub(crate) instructions: Option<String>,
    /// enqueue each line of a file, or of stdin (-), a JSON object each
    #[argh(option, arg_name = "path")]
    pub(crate) file: Option<String>,
    /// wait until the job ends and print its result
    #[argh(switch)]
    pub(crate) wait: bool,
    /// the job's id: enqueueing the same id twice is one job
    #[argh(option, arg_name = "id")]
    pub(crate) id: Option<String>,
    /// how long the job waits before its first phase
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) delay: Option<Duration>,
    /// a W3C traceparent that travels with the job, to its phases and to whoever looks
    #[argh(option, arg_name = "traceparent", from_str_fn(traceparent))]
    pub(crate) traceparent: Option<String>,
    /// how long to try to reach the manager, and to wait for jobs with --wait (default 30s, and for ever)
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) timeout: Option<Duration>,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Relay jobs and results between sites (PULL to PUSH).
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "streamer")]
pub(crate) struct StreamerArguments {
    /// where to listen for what is pushed; repeatable
    #[argh(option, arg_name = "address", from_str_fn(address))]
    pub(crate) pull: Vec<Address>,
    /// where to listen for those who pull; repeatable
    #[argh(option, arg_name = "address", from_str_fn(address))]
    pub(crate) push: Vec<Address>,
    /// a pushing side to dial; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) pull_connect: Vec<Address>,
    /// a pulling side to dial, such as a manager's --pull-bind; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) push_connect: Vec<Address>,
    /// taken for the original's command lines; nothing is taken in that the pushing side
    /// has no room for, so --push-hwm bounds both
    #[argh(option, arg_name = "messages")]
    pub(crate) pull_hwm: Option<usize>,
    /// how many messages are kept for each peer of the pushing side (default 64)
    #[argh(option, arg_name = "messages")]
    pub(crate) push_hwm: Option<usize>,
    /// a file to write the addresses to, as JSON, once all is ready
    #[argh(option, arg_name = "path")]
    pub(crate) ready_file: Option<String>,
}

/// Relay events between sites (SUB to PUB).
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "forwarder")]
pub(crate) struct ForwarderArguments {
    /// where to listen for publishers; repeatable
    #[argh(option, arg_name = "address", from_str_fn(address))]
    pub(crate) subscriber: Vec<Address>,
    /// where to listen for subscribers; repeatable
    #[argh(option, arg_name = "address", from_str_fn(address))]
    pub(crate) publisher: Vec<Address>,
    /// a publisher to dial; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) subscriber_connect: Vec<Address>,
    /// a subscriber to dial, such as a manager's --sub-bind; repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) publisher_connect: Vec<Address>,
    /// taken for the original's command lines; events are passed on at once, and what a
    /// subscriber does not take is bounded by --publisher-hwm
    #[argh(option, arg_name = "messages")]
    pub(crate) subscriber_hwm: Option<usize>,
    /// how many messages are kept for each subscriber; more are dropped (default 64)
    #[argh(option, arg_name = "messages")]
    pub(crate) publisher_hwm: Option<usize>,
    /// a file to write the addresses to, as JSON, once all is ready
    #[argh(option, arg_name = "path")]
    pub(crate) ready_file: Option<String>,
}

/// Check a pipeline file and the programs that it names.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "check")]
pub(crate) struct CheckArguments {
    /// the TOML file
    #[argh(positional)]
    pub(crate) file: String,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

macro_rules! client_arguments {
    ($(#[$meta:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$meta])*
        pub(crate) struct $name {
            $($more)*
            /// the manager's api address; repeatable (default tcp://127.0.0.1:5051)
            #[argh(option, arg_name = "address", from_str_fn(dialled))]
            pub(crate) api: Vec<Address>,
            /// how long to wait for the manager (default 10s)
            #[argh(option, arg_name = "duration", from_str_fn(duration))]
            pub(crate) timeout: Option<Duration>,
            /// print JSON
            #[argh(switch)]
            pub(crate) json: bool,
        }
    };
}

client_arguments! {
    /// List jobs.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "jobs")]
    JobsArguments {
        /// only of this state: enqueued, scheduled, running, success, failed, cancelled
        #[argh(option, arg_name = "state")]
        pub(crate) state: Option<String>,
        /// only at this phase
        #[argh(option, arg_name = "phase")]
        pub(crate) phase: Option<String>,
        /// only with this text in their last error
        #[argh(option, arg_name = "text")]
        pub(crate) error: Option<String>,
        /// only with ids that start so
        #[argh(option, arg_name = "prefix")]
        pub(crate) id: Option<String>,
        /// how many at most (default 100)
        #[argh(option, arg_name = "count", default = "100")]
        pub(crate) limit: u32,
    }
}

client_arguments! {
    /// Show everything about one job.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "job")]
    JobArguments {
        /// the job's id
        #[argh(positional)]
        pub(crate) id: String,
    }
}

client_arguments! {
    /// List workers.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "workers")]
    WorkersArguments {}
}

client_arguments! {
    /// Show how the pipeline, its phases and its journal are doing.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "stats")]
    StatsArguments {}
}

macro_rules! selecting {
    ($(#[$meta:meta])* $name:ident) => {
        client_arguments! {
            $(#[$meta])*
            $name {
                /// the jobs' ids
                #[argh(positional)]
                pub(crate) ids: Vec<String>,
                /// all jobs of this state instead of ids
                #[argh(option, arg_name = "state")]
                pub(crate) state: Option<String>,
                /// all jobs at this phase instead of ids
                #[argh(option, arg_name = "phase")]
                pub(crate) phase: Option<String>,
                /// all jobs with this text in their last error instead of ids
                #[argh(option, arg_name = "text")]
                pub(crate) error: Option<String>,
                /// all jobs that this is possible for
                #[argh(switch)]
                pub(crate) all: bool,
            }
        }
    };
}

selecting! {
    /// Run failed jobs again, from the phase at which they failed.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "retry")]
    RetryArguments
}

selecting! {
    /// Stop jobs that have not ended.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "cancel")]
    CancelArguments
}

selecting! {
    /// Forget failed jobs.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "discard")]
    DiscardArguments
}

client_arguments! {
    /// Start no more jobs, of one phase or at all; enqueueing goes on.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "pause")]
    PauseArguments {
        /// the phase (default all)
        #[argh(positional)]
        pub(crate) phase: Option<String>,
    }
}

client_arguments! {
    /// Start jobs again after a pause.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "resume")]
    ResumeArguments {
        /// the phase (default all)
        #[argh(positional)]
        pub(crate) phase: Option<String>,
    }
}

client_arguments! {
    /// Let a worker finish and leave, or the manager itself.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "drain")]
    DrainArguments {
        /// the worker's id or its unambiguous beginning (default the manager)
        #[argh(positional)]
        pub(crate) worker: Option<String>,
    }
}

client_arguments! {
    /// Follow logs and events.
    #[derive(FromArgs, ArgsInfo, Debug)]
    #[argh(subcommand, name = "tail")]
    TailArguments {
        /// only these kinds: job, worker, log, progress, manager; repeatable
        #[argh(option, arg_name = "kind")]
        pub(crate) only: Vec<String>,
        /// only of this job
        #[argh(option, arg_name = "id")]
        pub(crate) job: Option<String>,
        /// only of this phase
        #[argh(option, arg_name = "phase")]
        pub(crate) phase: Option<String>,
        /// only of this worker: its id or how that begins
        #[argh(option, arg_name = "worker")]
        pub(crate) worker: Option<String>,
        /// of log lines only those this loud or louder: error, warn, info, debug
        #[argh(option, arg_name = "level")]
        pub(crate) level: Option<String>,
        /// only what has this text, in any case of letters
        #[argh(option, arg_name = "text")]
        pub(crate) text: Option<String>,
        /// the manager's pub address, instead of asking its api; repeatable
        #[argh(option, arg_name = "address", from_str_fn(dialled))]
        pub(crate) sub_connect: Vec<Address>,
    }
}

/// Show the live state of a pipeline in this terminal.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "top")]
pub(crate) struct TopArguments {
    /// the manager's api address (default tcp://127.0.0.1:5051); repeatable
    #[argh(option, arg_name = "address", from_str_fn(dialled))]
    pub(crate) api: Vec<Address>,
    /// how long to wait for an answer (default 10s)
    #[argh(option, arg_name = "duration", from_str_fn(duration))]
    pub(crate) timeout: Option<Duration>,
    /// offer nothing that changes anything
    #[argh(switch)]
    pub(crate) read_only: bool,
}

/// Look into a journal while no manager runs on it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "journal")]
pub(crate) struct JournalArguments {
    #[argh(subcommand)]
    pub(crate) command: JournalCommand,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
pub(crate) enum JournalCommand {
    Verify(VerifyArguments),
    Export(ExportArguments),
    Import(ImportArguments),
}

/// Read everything and say what is readable; changes nothing.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "verify")]
pub(crate) struct VerifyArguments {
    /// the journal: sled:PATH or redis://HOST:PORT/DB
    #[argh(positional)]
    pub(crate) storage: String,
    /// the pipeline's name
    #[argh(positional)]
    pub(crate) name: String,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Save all that is readable to a file; changes nothing.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "export")]
pub(crate) struct ExportArguments {
    /// the journal: sled:PATH or redis://HOST:PORT/DB
    #[argh(positional)]
    pub(crate) storage: String,
    /// the pipeline's name
    #[argh(positional)]
    pub(crate) name: String,
    /// the file to make
    #[argh(positional)]
    pub(crate) output: String,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Make a new journal of an exported file.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "import")]
pub(crate) struct ImportArguments {
    /// the new journal: sled:PATH or redis://HOST:PORT/DB
    #[argh(positional)]
    pub(crate) storage: String,
    /// the pipeline's name
    #[argh(positional)]
    pub(crate) name: String,
    /// the exported file
    #[argh(positional)]
    pub(crate) input: String,
    /// go on although pages were lost before the export
    #[argh(switch)]
    pub(crate) accept_loss: bool,
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Print the version.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "version")]
pub(crate) struct VersionArguments {
    /// print JSON
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Print a completion script for a shell.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "completions")]
pub(crate) struct CompletionsArguments {
    /// bash, fish, zsh or nushell
    #[argh(positional)]
    pub(crate) shell: String,
}
