//! The command line: from arguments to an exit code.

mod admin;
mod arguments;
mod check;
mod device;
mod enqueue;
mod hang;
mod journal;
pub(crate) mod say;
mod serve;
mod signals;
mod split;
mod style;
mod table;
mod tail;
mod top;
mod web;
mod words;

use std::future::Future;
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

pub(crate) use self::style::Style;

use crate::Pipeline;
use crate::catalogue::Catalogue;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, nearest};
use arguments::{Arguments, Command, JournalCommand, MARK, VersionArguments};

/// Runs the `carbontube` binary's command line: pipelines come from files.
pub fn run_files() -> ExitCode {
    say::tell_panics();
    execute(None)
}

/// Runs a command line for pipelines with phases in Rust.
///
/// The program has the subcommands of the `carbontube` binary, without the FILE
/// argument: `my-program phase encode-video --concurrency=4`.
pub fn run(pipelines: impl IntoIterator<Item = Pipeline>) -> ExitCode {
    execute(Some(pipelines.into_iter().collect()))
}

/// Where pipelines come from.
enum Source {
    Files,
    Program(Catalogue),
}

impl Source {
    fn catalogue(self, file: &str) -> Outcome<Catalogue> {
        match self {
            Source::Files => Catalogue::from_file(file),
            Source::Program(catalogue) => Ok(catalogue),
        }
    }
}

fn execute(pipelines: Option<Vec<Pipeline>>) -> ExitCode {
    let _flush = say::FlushAtEnd;
    let outcome = read_arguments().and_then(|arguments| {
        let source = match pipelines {
            None => Source::Files,
            Some(pipelines) => Source::Program(Catalogue::from_pipelines(pipelines)?),
        };
        match parse(
            &program_name(),
            arguments,
            matches!(source, Source::Program(_)),
        )? {
            Parsed::Help(text) => {
                print(&text)?;
                Ok(Exit::Success)
            }
            Parsed::Command(command) => dispatch(command, source),
        }
    });
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit().into()
        }
    }
}

/// The name that this program was called by.
fn program_name() -> String {
    std::env::args_os()
        .next()
        .map(std::path::PathBuf::from)
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "carbontube".to_owned())
}

fn read_arguments() -> Outcome<Vec<String>> {
    std::env::args_os()
        .skip(1)
        .map(|argument| {
            argument
                .into_string()
                .map_err(|bad| Failure::usage(format!("the argument {bad:?} is not UTF-8")))
        })
        .collect()
}

enum Parsed {
    Help(String),
    Command(Box<Command>),
}

/// Stands in for FILE where a program has its pipelines in itself.
const NO_FILE: &str = "(in this program)";

fn parse(program: &str, arguments: Vec<String>, own: bool) -> Outcome<Parsed> {
    let info = Arguments::get_args_info();
    let mut split = split::split_options(&arguments, &info).map_err(Failure::usage)?;
    let command = split
        .iter()
        .find(|argument| !argument.starts_with('-'))
        .cloned();
    let takes_file = command
        .as_deref()
        .is_some_and(|name| matches!(name, "pipeline" | "phase" | "bundle" | "check"));
    if own && takes_file {
        let place = split.iter().position(|a| Some(a) == command.as_ref());
        split.insert(place.map_or(0, |place| place + 1), NO_FILE.to_owned());
    }
    if split.is_empty() {
        split.push("--help".to_owned());
    }
    let words: Vec<&str> = split.iter().map(String::as_str).collect();
    match Arguments::from_args(&[program], &words) {
        Ok(arguments) => Ok(Parsed::Command(Box::new(arguments.command))),
        Err(early) if early.status.is_ok() => {
            let mut text = early.output;
            if own && takes_file {
                text = without_file(&text);
            }
            Ok(Parsed::Help(text))
        }
        Err(early) => Err(usage_failure(
            program,
            &early.output,
            command.as_deref(),
            &info,
        )),
    }
}

/// Takes the FILE argument out of a help text.
fn without_file(help: &str) -> String {
    let mut text = String::new();
    for line in help.lines() {
        if line.starts_with("  file ") {
            continue;
        }
        text.push_str(&line.replacen("<file> ", "", 1).replacen(" <file>", "", 1));
        text.push('\n');
    }
    text
}

/// Argh's complaint in our manner.
fn usage_failure(
    program: &str,
    output: &str,
    command: Option<&str>,
    info: &argh::CommandInfoWithArgs,
) -> Failure {
    let known = command.and_then(|name| info.commands.iter().find(|c| c.name == name));
    let help = match known {
        Some(command) => format!("`{program} {} --help` shows what it takes", command.name),
        None => format!("`{program} --help` shows what there is"),
    };
    if let Some((before, ours)) = output.split_once(MARK) {
        // `before` is argh's "Error parsing option '--x' with value 'y': ".
        let option = before
            .split_once(['\'', '"'])
            .and_then(|(_, rest)| rest.split_once(['\'', '"']))
            .map_or("", |(option, _)| option);
        let (message, hint) = match ours.trim_end().split_once("\nhint: ") {
            Some((message, hint)) => (message, hint.to_owned()),
            None => (ours.trim_end(), help),
        };
        return Failure::usage(format!("{option}: {message}")).hint(hint);
    }
    let output = output.trim_end();
    if let Some(unknown) = output.strip_prefix("Unrecognized argument: ") {
        let near = match known {
            Some(command) => nearest(unknown, command.command.flags.iter().map(|f| f.long)),
            None => nearest(unknown, info.commands.iter().map(|c| c.name)),
        };
        let what = if unknown.starts_with('-') {
            "option"
        } else if known.is_some() {
            "further argument"
        } else {
            "command"
        };
        let failure = Failure::usage(format!("there is no {what} {unknown:?} here"));
        return failure.hint(match near {
            Some(name) => format!("did you mean `{name}`? {help}"),
            None => help,
        });
    }
    if let Some((option, value)) = unparsed(output) {
        // Addresses, durations and texts have messages of ours: this was a number.
        return Failure::usage(format!("{option}: {value:?} is not a whole number")).hint(help);
    }
    let mut lines = output.lines();
    let first = lines.next().unwrap_or("the command line is not right");
    let rest: Vec<&str> = lines
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut message = first.trim_end_matches('.').to_owned();
    if let Some(letter) = message.get(..1).map(str::to_lowercase) {
        message.replace_range(..1, &letter);
    }
    if !rest.is_empty() {
        message = format!("{message} {}", rest.join(", "));
    }
    Failure::usage(message).hint(help)
}

/// The option and the value in "Error parsing option '--x' with value 'y': …".
fn unparsed(output: &str) -> Option<(&str, &str)> {
    let rest = output.strip_prefix("Error parsing option '")?;
    let (option, rest) = rest.split_once("' with value '")?;
    let (value, _) = rest.rsplit_once("': ")?;
    Some((option, value))
}

/// Whether the command serves until it is told to end.
fn serves(command: &Command) -> bool {
    matches!(
        command,
        Command::Pipeline(_)
            | Command::Phase(_)
            | Command::Bundle(_)
            | Command::Streamer(_)
            | Command::Forwarder(_)
            | Command::Web(_)
    )
}

fn dispatch(command: Box<Command>, source: Source) -> Outcome<Exit> {
    let serves = serves(&command);
    if serves {
        say::serve();
    }
    start_log(if serves { "info" } else { "warn" });
    let _watchdog = if serves { hang::watch()? } else { None };
    match *command {
        Command::Pipeline(arguments) => serve::pipeline(arguments, source),
        Command::Phase(arguments) => serve::phase(arguments, source),
        Command::Bundle(arguments) => serve::bundle(arguments, source),
        Command::Web(arguments) => web::web(arguments),
        Command::Enqueue(arguments) => enqueue::enqueue(arguments),
        Command::Streamer(arguments) => device::streamer(arguments),
        Command::Forwarder(arguments) => device::forwarder(arguments),
        Command::Check(arguments) => check::check(arguments, source),
        Command::Jobs(arguments) => admin::jobs(arguments),
        Command::Job(arguments) => admin::job(arguments),
        Command::Workers(arguments) => admin::workers(arguments),
        Command::Stats(arguments) => admin::stats(arguments),
        Command::Retry(arguments) => admin::retry(arguments),
        Command::Cancel(arguments) => admin::cancel(arguments),
        Command::Discard(arguments) => admin::discard(arguments),
        Command::Pause(arguments) => admin::pause(arguments),
        Command::Resume(arguments) => admin::resume(arguments),
        Command::Drain(arguments) => admin::drain(arguments),
        Command::Tail(arguments) => tail::tail(arguments),
        Command::Top(arguments) => top::top(arguments),
        Command::Journal(arguments) => match arguments.command {
            JournalCommand::Verify(arguments) => journal::verify(arguments),
            JournalCommand::Export(arguments) => journal::export(arguments),
            JournalCommand::Import(arguments) => journal::import(arguments),
        },
        Command::Version(arguments) => version(arguments),
        Command::Completions(arguments) => completions(&program_name(), &arguments.shell),
    }
}

fn start_log(default_level: &str) {
    let environment = env_logger::Env::new().filter_or(
        "CARBONTUBE_LOG",
        format!("warn,zeromq=error,carbontube={default_level},carbontube_manager={default_level},carbontube_web={default_level}"),
    );
    let mut logger = env_logger::Builder::from_env(environment);
    logger.target(env_logger::Target::Pipe(Box::new(say::LogLines)));
    if Style::stderr().is_coloured() {
        logger.write_style(env_logger::WriteStyle::Always);
    }
    let logger = logger.build();
    let most = logger.filter();
    // Fails only when a program that embeds this has a logger already: fine.
    if log::set_boxed_logger(Box::new(HarmlessLog(logger))).is_ok() {
        log::set_max_level(most);
    }
}

/// A log whose lines move no cursor and are one line each, whatever peers wrote.
struct HarmlessLog(env_logger::Logger);

impl log::Log for HarmlessLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.log(
            &log::Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!(
                    "{}",
                    carbontube_protocol::Harmless(record.args())
                ))
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .build(),
        );
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn version(arguments: VersionArguments) -> Outcome<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if arguments.json {
        print_json(&serde_json::json!({
            "version": version,
            "protocol": carbontube_protocol::PROTOCOL_VERSION,
        }))?;
    } else {
        print(&format!("carbontube {version}\n"))?;
    }
    Ok(Exit::Success)
}

fn completions(program: &str, shell: &str) -> Outcome<Exit> {
    use argh_complete::{Generator, bash::Bash, fish::Fish, nushell::Nushell, zsh::Zsh};

    let info = Arguments::get_args_info();
    let script = match shell {
        "bash" => Bash::generate(program, &info),
        "fish" => Fish::generate(program, &info),
        "zsh" => Zsh::generate(program, &info),
        "nushell" => Nushell::generate(program, &info),
        other => {
            let shells = ["bash", "fish", "zsh", "nushell"];
            let message = format!("there are no completions for {other:?}");
            return Err(Failure::usage(message).hint(crate::failure::suggestion(
                other,
                "completions",
                shells,
            )));
        }
    };
    print(&script)?;
    Ok(Exit::Success)
}

/// Runs async work to its end.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    carbontube_transport::init_runtime();
    async_std::task::block_on(work)
}

/// Writes to stdout; a reader that went away ends the process in silence.
fn print(text: &str) -> Outcome {
    use std::io::Write;

    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(Exit::Success.code()))
        }
        Err(error) => {
            Err(Failure::from_error(Exit::Failure, &error).context("cannot write to stdout"))
        }
    }
}

fn print_json(value: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string(value).map_err(|error| {
        Failure::from_error(Exit::Failure, &error).context("cannot write the answer as JSON")
    })?;
    print(&(text + "\n"))
}

/// A client's error in our manner.
fn client_failure(error: &carbontube_client::ClientError) -> Failure {
    use carbontube_client::ClientError;

    let exit = match error {
        ClientError::NotConnected { .. }
        | ClientError::NotConfirmed { .. }
        | ClientError::NotSent { .. }
        | ClientError::Absent { .. }
        | ClientError::StillRunning { .. }
        | ClientError::NotDelivered { .. } => Exit::Timeout,
        ClientError::Refusal { .. }
        | ClientError::Rejected { .. }
        | ClientError::Refused { .. } => Exit::Refused,
        ClientError::Instructions(_)
        | ClientError::Serialize(_)
        | ClientError::NeedsApi { .. }
        | ClientError::NoAddress => Exit::Usage,
        _ => Exit::Failure,
    };
    Failure::from_error(exit, error)
        .in_one_line()
        .maybe_hint(error.hint())
}

/// Writes the addresses for whoever waits for them; never half a file.
fn write_ready_file(path: &str, ready: &serde_json::Value) -> Outcome {
    use std::hash::{BuildHasher, RandomState};
    use std::io::Write;

    // Where others may write too, nobody can have put a link there before.
    let random = RandomState::new().hash_one(std::process::id());
    let partial = format!("{path}.{random:016x}.part");
    std::fs::File::create_new(&partial)
        .and_then(|mut file| file.write_all(format!("{ready}\n").as_bytes()))
        .and_then(|()| std::fs::rename(&partial, path))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&partial);
        })
        .map_err(|error| {
            Failure::from_error(Exit::Failure, &error)
                .context(format!("cannot write the ready file {path}"))
        })
}

#[cfg(test)]
mod tests;
