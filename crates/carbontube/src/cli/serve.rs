//! `pipeline`, `phase` and `bundle`: the processes that serve.

use std::thread::available_parallelism;
use std::time::Duration;

use carbontube_manager::{
    Manager, ManagerAddresses, ManagerHandle, ManagerOptions, SocketRole, StartError,
};
use carbontube_protocol::{Address, Host};
use carbontube_transport::{Endpoint, OpenError};
use carbontube_web::WebOptions;
use carbontube_worker::{Worker, WorkerHandle, WorkerOptions};
use serde_json::json;

use super::arguments::{BundleArguments, PhaseArguments, PipelineArguments};
use super::say::say;
use super::signals::on_signals;
use super::{Source, Style, block_on, web, write_ready_file};
use crate::catalogue::{PhaseEntry, PipelineEntry};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// How long a bundle's manager waits for its workers' last words.
const BUNDLE_GRACE: Duration = Duration::from_secs(30);

/// What `pipeline` and `bundle` have in common.
struct ManagerChoice {
    pull_bind: Vec<Address>,
    sub_bind: Vec<Address>,
    api_bind: Vec<Address>,
    pub_bind: Vec<Address>,
    pull_connect: Vec<Address>,
    sub_connect: Vec<Address>,
    storage: Option<String>,
    worker_timeout: Option<Duration>,
    adoption_grace: Option<Duration>,
    history_jobs: Option<u64>,
    history_age: Option<Duration>,
    live_jobs_max: Option<u64>,
    live_bytes_max: Option<u64>,
    instructions_bytes_max: Option<usize>,
}

macro_rules! choice {
    ($arguments:ident) => {
        ManagerChoice {
            pull_bind: $arguments.pull_bind,
            sub_bind: $arguments.sub_bind,
            api_bind: $arguments.api_bind,
            pub_bind: $arguments.pub_bind,
            pull_connect: $arguments.pull_connect,
            sub_connect: $arguments.sub_connect,
            storage: $arguments.storage,
            worker_timeout: $arguments.worker_timeout,
            adoption_grace: $arguments.adoption_grace,
            history_jobs: $arguments.history_jobs,
            history_age: $arguments.history_age,
            live_jobs_max: $arguments.live_jobs_max,
            live_bytes_max: $arguments.live_bytes_max,
            instructions_bytes_max: $arguments.instructions_bytes_max,
        }
    };
}

/// The address beside the pull address: its host with another port, or any free port
/// when the pull address leaves its port to the system.
fn beside(pull: Option<&Address>, port: u16) -> Address {
    match pull {
        Some(Address::Tcp { host, port: given }) => Address::Tcp {
            host: host.clone(),
            port: given.map(|_| port),
        },
        Some(Address::Ipc { .. }) | None => Address::tcp("127.0.0.1", port),
    }
}

impl ManagerChoice {
    fn options(&self, pipeline: &PipelineEntry) -> Outcome<ManagerOptions> {
        let mut options = ManagerOptions::new(pipeline.definition.clone());
        let first = self.pull_bind.first();
        if !self.pull_bind.is_empty() || !self.pull_connect.is_empty() {
            options.pull = endpoints(&self.pull_bind, &self.pull_connect);
        }
        if !self.sub_bind.is_empty() || !self.sub_connect.is_empty() {
            options.subscribe = endpoints(&self.sub_bind, &self.sub_connect);
        } else {
            options.subscribe = vec![Endpoint::Bind(beside(first, 6000))];
        }
        options.api = self.api_bind.clone();
        if options.api.is_empty() {
            options.api = vec![beside(first, 5051)];
        }
        options.publish = self.pub_bind.clone();
        if options.publish.is_empty() {
            options.publish = vec![beside(first, 6001)];
        }
        if let Some(uri) = self.storage.as_ref().or(pipeline.storage.as_ref()) {
            options.storage.clone_from(uri);
        }
        let core = &mut options.core;
        if let Some(timeout) = self.worker_timeout {
            if timeout < Duration::from_secs(2) {
                return Err(Failure::usage(
                    "--worker-timeout is at least 2s: workers send a heartbeat each second",
                ));
            }
            core.worker_timeout = timeout;
        }
        if let Some(grace) = self.adoption_grace {
            core.adoption_grace = grace;
        }
        if let Some(jobs) = self.history_jobs {
            core.history_jobs_max = jobs;
        }
        if let Some(age) = self.history_age {
            core.history_age_max = age;
        }
        if let Some(jobs) = self.live_jobs_max {
            core.live_jobs_max = jobs;
        }
        if let Some(bytes) = self.live_bytes_max {
            core.live_bytes_max = bytes;
        }
        if let Some(bytes) = self.instructions_bytes_max {
            if !(2..=core.limits.instructions_bytes_max).contains(&bytes) {
                return Err(Failure::usage(format!(
                    "--instructions-bytes-max is from 2 to {}, not {bytes}",
                    core.limits.instructions_bytes_max
                )));
            }
            core.instructions_bytes_max = bytes;
        }
        Ok(options)
    }

    async fn start(&self, pipeline: &PipelineEntry) -> Outcome<Manager> {
        let options = self.options(pipeline)?;
        let manager = Manager::start(options.clone())
            .await
            .map_err(|error| self.failure(&error))?;
        say_manager(pipeline, &options, manager.addresses());
        Ok(manager)
    }

    fn failure(&self, error: &StartError) -> Failure {
        let exit = match error {
            StartError::Journal { .. } | StartError::Recovery { .. } => Exit::Journal,
            _ => Exit::Failure,
        };
        let failure = Failure::from_error(exit, error).maybe_hint(error.hint());
        let by_default = match error {
            StartError::Socket {
                role,
                source: OpenError::InUse { .. },
            } => match role {
                SocketRole::Pull if self.pull_bind.is_empty() => Some("pull"),
                SocketRole::Subscribe if self.sub_bind.is_empty() => Some("sub"),
                SocketRole::Api if self.api_bind.is_empty() => Some("api"),
                SocketRole::Publish if self.pub_bind.is_empty() => Some("pub"),
                _ => None,
            },
            _ => None,
        };
        match by_default {
            Some("pull") => failure.hint(
                "that is the default pull address, which another pipeline on this box may have; --pull-bind tcp://127.0.0.1 takes a free port, for the other addresses too",
            ),
            Some(role) => failure.hint(format!(
                "that is the default {role} address, which another pipeline on this box may have; --{role}-bind tcp://127.0.0.1 takes a free port"
            )),
            None => failure,
        }
    }
}

fn endpoints(bind: &[Address], connect: &[Address]) -> Vec<Endpoint> {
    let bind = bind.iter().cloned().map(Endpoint::Bind);
    bind.chain(connect.iter().cloned().map(Endpoint::Connect))
        .collect()
}

fn list(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    texts.join(" ")
}

fn say_manager(pipeline: &PipelineEntry, options: &ManagerOptions, addresses: &ManagerAddresses) {
    let style = Style::stderr();
    let phases: Vec<&str> = pipeline
        .definition
        .phases()
        .iter()
        .map(|phase| phase.job_type.as_str())
        .collect();
    say(format_args!(
        "{} {}",
        style.strong(format!("pipeline {}", pipeline.definition.name())),
        style.faint(format!("({})", phases.join(" → ")))
    ));
    for (name, bound) in [
        ("pull", &addresses.pull),
        ("sub", &addresses.subscribe),
        ("api", &addresses.api),
        ("pub", &addresses.publish),
    ] {
        if !bound.is_empty() {
            say(format_args!("  {name:<8}{}", list(bound)));
        }
    }
    say(format_args!(
        "  journal {}",
        without_password(&options.storage)
    ));
}

fn without_password(uri: &str) -> String {
    uri.parse::<carbontube_storage::StoreUri>()
        .map_or_else(|_| "?".to_owned(), |uri| uri.to_string())
}

fn ready(addresses: &ManagerAddresses) -> serde_json::Value {
    json!({
        "pull": addresses.pull,
        "sub": addresses.subscribe,
        "api": addresses.api,
        "pub": addresses.publish,
    })
}

pub(crate) fn pipeline(arguments: PipelineArguments, source: Source) -> Outcome<Exit> {
    let catalogue = source.catalogue(&arguments.file)?;
    let entry = catalogue.pipeline(&arguments.name)?;
    let ready_file = arguments.ready_file;
    let choice = choice!(arguments);
    block_on(async {
        let manager = choice.start(entry).await?;
        let (drain, stop) = (manager.handle(), manager.handle());
        let interrupted = on_signals(
            "no more jobs are taken, running ones may finish",
            move || drain.drain(),
            move || stop.stop_now(),
        )?;
        if let Some(path) = &ready_file {
            write_ready_file(path, &ready(manager.addresses()))?;
        }
        run_manager(manager).await?;
        Ok(interrupted.exit())
    })
}

async fn run_manager(manager: Manager) -> Outcome {
    manager.run().await.map_err(|error| {
        Failure::from_error(Exit::Journal, &error)
            .hint("confirmed jobs are in the journal: start the manager again")
    })
}

/// How many jobs a phase runs at once.
fn slots(asked: Option<u32>, entry: &PhaseEntry) -> Outcome<u32> {
    if asked == Some(0) {
        return Err(Failure::usage("--concurrency is at least 1"));
    }
    Ok(asked.or(entry.concurrency).unwrap_or_else(|| {
        let processors = available_parallelism().map_or(1, usize::from);
        u32::try_from(processors).unwrap_or(1)
    }))
}

async fn start_worker(options: WorkerOptions, entry: &PhaseEntry) -> Outcome<Worker> {
    use carbontube_worker::StartError;

    let slots = options.slots;
    let worker = Worker::start(options, entry.work.clone().into_any())
        .await
        .map_err(|error| {
            let exit = match error {
                StartError::CommandEmpty
                | StartError::CommandNotFound { .. }
                | StartError::CommandNotExecutable { .. }
                | StartError::CommandDir { .. } => Exit::Definition,
                StartError::Slots { .. } | StartError::Addresses { .. } => Exit::Usage,
                _ => Exit::Failure,
            };
            let hint = match &error {
                StartError::Socket {
                    source: OpenError::InUse { .. },
                    ..
                } => Some("choose another address with --pull-bind; without it any free port is taken"),
                StartError::Advertise { .. } => {
                    Some("give an address that managers can dial with --advertise")
                }
                StartError::CommandNotFound { .. } => Some(
                    "a program with a / in its name is searched from the pipeline file's folder, others in PATH",
                ),
                _ => None,
            };
            Failure::from_error(exit, &error)
                .context(format!("cannot run phase {}", entry.definition.job_type))
                .maybe_hint(hint)
        })?;
    say(format_args!(
        "{} takes jobs at {}, {slots} at once",
        Style::stderr().strong(format!("phase {}", entry.definition.job_type)),
        worker.address(),
    ));
    Ok(worker)
}

pub(crate) fn phase(arguments: PhaseArguments, source: Source) -> Outcome<Exit> {
    let catalogue = source.catalogue(&arguments.file)?;
    let entry = catalogue.phase(&arguments.job_type)?;
    let mut options = WorkerOptions::new(entry.definition.job_type.clone());
    options.slots = slots(arguments.concurrency, entry)?;
    if !arguments.pull_bind.is_empty() || !arguments.pull_connect.is_empty() {
        options.pull = endpoints(&arguments.pull_bind, &arguments.pull_connect);
    }
    options.push_connect = or_local(arguments.push_connect, 5050);
    options.pub_connect = or_local(arguments.pub_connect, 6000);
    options.advertise = arguments.advertise;
    options.timeout = arguments.timeout;
    if let Some(grace) = arguments.grace {
        options.grace = grace;
    }
    block_on(async {
        let worker = start_worker(options, entry).await?;
        let (drain, stop) = (worker.handle(), worker.handle());
        let interrupted = on_signals(
            "no more jobs are started, running ones may finish",
            move || drain.drain(),
            move || stop.stop_now(),
        )?;
        if let Some(path) = &arguments.ready_file {
            write_ready_file(path, &json!({ "address": worker.address() }))?;
        }
        worker.run().await;
        Ok(interrupted.exit())
    })
}

fn or_local(addresses: Vec<Address>, port: u16) -> Vec<Address> {
    if addresses.is_empty() {
        vec![Address::tcp("127.0.0.1", port)]
    } else {
        addresses
    }
}

/// Any free port of the loopback interface, for a bundle's workers.
fn free_port() -> Address {
    Address::Tcp {
        host: Host::Name("127.0.0.1".to_owned()),
        port: None,
    }
}

/// The address at which this same process reaches what it bound.
fn from_here(address: &Address) -> Address {
    match address {
        Address::Tcp {
            host: Host::Any,
            port,
        } => Address::Tcp {
            host: Host::Name("127.0.0.1".to_owned()),
            port: *port,
        },
        Address::Tcp {
            host: Host::Name(name),
            port,
        } if name == "0.0.0.0" => Address::Tcp {
            host: Host::Name("127.0.0.1".to_owned()),
            port: *port,
        },
        other => other.clone(),
    }
}

pub(crate) fn bundle(arguments: BundleArguments, source: Source) -> Outcome<Exit> {
    let catalogue = source.catalogue(&arguments.file)?;
    let entry = catalogue.pipeline(&arguments.name)?.clone();
    let (concurrency, ready_file) = (arguments.concurrency, arguments.ready_file);
    let web = arguments.web;
    let web_token = web::token(arguments.web_token_file.as_deref())?;
    let choice = choice!(arguments);
    let mut plan = Vec::new();
    for phase in entry.definition.phases() {
        let phase = catalogue.phase(phase.job_type.as_str())?;
        plan.push((phase, slots(concurrency, phase)?));
    }
    block_on(async {
        let manager = choice.start(&entry).await?;
        let addresses = manager.addresses().clone();
        let mut workers = Vec::new();
        for (phase, slots) in plan {
            let mut options = WorkerOptions::new(phase.definition.job_type.clone());
            options.slots = slots;
            options.pull = vec![Endpoint::Bind(free_port())];
            options.push_connect = addresses.pull.iter().map(from_here).collect();
            options.pub_connect = addresses.subscribe.iter().map(from_here).collect();
            workers.push(start_worker(options, phase).await?);
        }
        let handles: Vec<WorkerHandle> = workers.iter().map(Worker::handle).collect();
        let (drain, stop) = (manager.handle(), (manager.handle(), handles.clone()));
        let interrupted = on_signals(
            "no more jobs are taken, running ones may finish",
            move || drain.drain(),
            move || {
                stop.0.stop_now();
                stop.1.iter().for_each(WorkerHandle::stop_now);
            },
        )?;
        let web = match web {
            None => None,
            Some((host, port)) => {
                let options = WebOptions {
                    host,
                    port,
                    api: addresses.api.iter().take(1).map(from_here).collect(),
                    token: web_token,
                    ..WebOptions::default()
                };
                Some(web::start(options).await?)
            }
        };
        if let Some(path) = &ready_file {
            let mut ready = ready(&addresses);
            if let Some(web) = &web {
                ready["web"] = json!(web.url());
            }
            write_ready_file(path, &ready)?;
        }
        if let Some(api) = addresses.api.first() {
            say(format_args!(
                "enqueue with: carbontube enqueue {} {} '{{}}' --wait",
                from_here(api),
                entry.definition.name()
            ));
        }
        run_bundle(manager, workers, &handles).await?;
        Ok(interrupted.exit())
    })
}

/// Runs all until the manager ends; then the workers go too.
async fn run_bundle(manager: Manager, workers: Vec<Worker>, handles: &[WorkerHandle]) -> Outcome {
    let manager_handle: ManagerHandle = manager.handle();
    let running: Vec<_> = workers
        .into_iter()
        .map(|worker| async_std::task::spawn(worker.run()))
        .collect();
    let outcome = run_manager(manager).await;
    manager_handle.stop_now();
    // The manager is gone: nobody acknowledges what the workers would still send, and
    // what runs is found undone in the journal.
    handles.iter().for_each(WorkerHandle::stop_now);
    let all = async {
        for worker in running {
            worker.await;
        }
    };
    let _ = async_std::future::timeout(BUNDLE_GRACE, all).await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_stands_beside_the_pull_address() {
        for (pull, expected) in [
            (None, "tcp://127.0.0.1:5051"),
            (Some("tcp://127.0.0.1:5050"), "tcp://127.0.0.1:5051"),
            (Some("tcp://10.0.0.7:9000"), "tcp://10.0.0.7:5051"),
            (Some("tcp://*:9000"), "tcp://*:5051"),
            (Some("tcp://127.0.0.1"), "tcp://127.0.0.1"),
            (Some("ipc:///tmp/pull"), "tcp://127.0.0.1:5051"),
        ] {
            let pull: Option<Address> = pull.map(|text| text.parse().expect("an address"));
            assert_eq!(beside(pull.as_ref(), 5051).to_string(), expected);
        }
    }
}
