//! One pipeline as separate processes: a manager with its journal, and workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_std::task;
use carbontube_client::{ClientOptions, PipelineClient, PipelineName};
use carbontube_protocol::message::Stats;
use carbontube_tests::{Process, Signal};

use crate::fault::{Deed, Fault, FaultLog, Whom};
use crate::proxy::{Proxy, Weather};

/// After how much silence a worker is lost, unless a plan says otherwise.
pub(crate) const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

/// What to run.
pub(crate) struct Plan<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) phases: &'a [&'a str],
    /// The program whose first argument is a phase's name.
    pub(crate) program: &'a str,
    /// More lines for every phase's table in the definition.
    pub(crate) settings: &'a str,
    /// The journal; `None` for sled in the cluster's folder.
    pub(crate) storage: Option<String>,
    /// After how much silence the manager takes a worker for lost.
    pub(crate) worker_timeout: Duration,
    /// How many ended jobs the manager keeps; `None` is the manager's own default.
    pub(crate) history_jobs: Option<u64>,
}

/// The manager's own `--history-jobs`.
const HISTORY_JOBS: u64 = 100_000;

/// The processes, their folder and their addresses.
pub(crate) struct Cluster {
    folder: PathBuf,
    pipeline: PipelineName,
    program: PathBuf,
    storage: String,
    manager: Option<Process>,
    /// Pull, sub, api, pub, as they were bound first; a restarted manager binds the same.
    addresses: Option<[String; 4]>,
    workers: Vec<Member>,
    /// A client, a streamer and a forwarder, if there are any.
    others: [Other; 3],
    /// More arguments of the manager.
    manager_more: Vec<String>,
    /// The process of every worker that ever was, by the worker's id.
    pub(crate) worker_ids: BTreeMap<String, u32>,
    /// What was done to whom. Processes are noted here, links by whoever cuts them.
    pub(crate) faults: FaultLog,
    worker_timeout: Duration,
    history_jobs: Option<u64>,
    /// When all workers were last looked after.
    revived_us: u64,
    ledgers: bool,
}

/// A worker, and what starts it again.
struct Member {
    arguments: Vec<String>,
    process: Option<Process>,
    ways: Option<Ways>,
    behind_devices: bool,
}

/// A process that is neither manager nor worker.
#[derive(Default)]
struct Other {
    arguments: Vec<String>,
    process: Option<Process>,
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Streamer,
    Forwarder,
}

impl Role {
    /// The way of the workers behind it that leads through it.
    fn way(self) -> Option<Way> {
        match self {
            Role::Client => None,
            Role::Streamer => Some(Way::Results),
            Role::Forwarder => Some(Way::Events),
        }
    }

    fn whom(self) -> Whom {
        match self {
            Role::Client => Whom::Client,
            Role::Streamer | Role::Forwarder => Whom::Device,
        }
    }
}

/// The ways between a worker and its manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Attempts and acknowledgements; the manager dials.
    Pipe,
    /// Results; the worker dials.
    Results,
    /// Heartbeats and logs; the worker dials.
    Events,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Pipe, Way::Results, Way::Events];

    fn deed(self) -> Deed {
        match self {
            Way::Pipe => Deed::PipeCut,
            Way::Results => Deed::ResultsCut,
            Way::Events => Deed::EventsCut,
        }
    }
}

/// A proxy for each way.
struct Ways {
    pipe: Proxy,
    results: Proxy,
    events: Proxy,
}

impl Ways {
    fn get(&self, way: Way) -> &Proxy {
        match way {
            Way::Pipe => &self.pipe,
            Way::Results => &self.results,
            Way::Events => &self.events,
        }
    }
}

/// The folders of clusters, to be removed where no destructor runs.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Kills every process and removes every cluster's folder.
pub(crate) fn end_all() {
    carbontube_tests::kill_all();
    crate::mount::end_all();
    for folder in FOLDERS
        .lock()
        .unwrap_or_else(|broken| broken.into_inner())
        .iter()
    {
        let _gone = std::fs::remove_dir_all(folder);
    }
}

/// Where the release binaries are.
pub(crate) fn binaries() -> PathBuf {
    match std::env::var_os("CARBONTUBE_BINARIES") {
        Some(folder) => folder.into(),
        None => {
            let own = std::env::current_exe().expect("a process knows its own path");
            own.parent().expect("a program is in a folder").to_owned()
        }
    }
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

impl Cluster {
    /// Writes the definition and starts the manager on free ports.
    pub(crate) fn start(folder: &Path, plan: &Plan<'_>) -> Result<Self> {
        FOLDERS
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
            .push(folder.to_owned());
        let program = binaries().join(plan.program);
        let names: Vec<String> = plan.phases.iter().map(|name| format!("{name:?}")).collect();
        let mut definition = format!(
            "[[pipeline]]\nname = \"{}\"\nphases = [{}]\n",
            plan.pipeline,
            names.join(", ")
        );
        for phase in plan.phases {
            definition.push_str(&format!(
                "\n[phase.{phase}]\ncommand = [{program:?}, \"{phase}\"]\n{}\n",
                plan.settings
            ));
        }
        std::fs::write(folder.join("pipeline.toml"), definition)?;
        let storage = match &plan.storage {
            Some(uri) => uri.clone(),
            None => format!("sled:{}", folder.join("journal").display()),
        };
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            pipeline: plan.pipeline.parse()?,
            program,
            storage,
            manager: None,
            addresses: None,
            workers: Vec::new(),
            others: Default::default(),
            manager_more: Vec::new(),
            worker_ids: BTreeMap::new(),
            faults: FaultLog::default(),
            worker_timeout: plan.worker_timeout,
            history_jobs: plan.history_jobs,
            revived_us: now_us(),
            ledgers: true,
        };
        cluster.start_manager()?;
        Ok(cluster)
    }

    /// The same with workers that keep no ledgers, where those would be measured as well.
    pub(crate) fn without_ledgers(mut self) -> Self {
        self.ledgers = false;
        self
    }

    /// The arguments that start the manager.
    pub(crate) fn manager_arguments(&self) -> Vec<String> {
        let local = || "tcp://127.0.0.1".to_owned();
        let [pull, sub, api, publish] = match &self.addresses {
            Some(addresses) => addresses.clone(),
            None => [local(), local(), local(), local()],
        };
        let mut arguments = vec![
            "pipeline".to_owned(),
            "pipeline.toml".to_owned(),
            self.pipeline.to_string(),
            format!("--pull-bind={pull}"),
            format!("--sub-bind={sub}"),
            format!("--api-bind={api}"),
            format!("--pub-bind={publish}"),
            format!("--storage={}", self.storage),
            format!("--worker-timeout={}ms", self.worker_timeout.as_millis()),
        ];
        let history = self.history_jobs.iter();
        arguments.extend(history.map(|jobs| format!("--history-jobs={jobs}")));
        arguments.extend(self.manager_more.iter().cloned());
        arguments
    }

    /// How many ended jobs the manager keeps.
    pub(crate) fn history_jobs(&self) -> u64 {
        self.history_jobs.unwrap_or(HISTORY_JOBS)
    }

    /// Starts the manager, on the same ports as before.
    pub(crate) fn start_manager(&mut self) -> Result<()> {
        let program = binaries().join("carbontube");
        let process = Process::start_program(&self.folder, &program, &self.manager_arguments());
        self.addresses = Some(["pull", "sub", "api", "pub"].map(|kind| process.address(kind)));
        self.manager = Some(process);
        self.faults.over(Whom::Manager, Deed::Killed);
        self.faults.over(Whom::Manager, Deed::Drained);
        Ok(())
    }

    /// Kills the manager (SIGKILL).
    pub(crate) fn kill_manager(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            self.faults
                .note(Fault::beginning(Whom::Manager, Deed::Killed));
            manager.kill();
        }
    }

    /// Ends the manager in good order (SIGTERM).
    pub(crate) fn drain_manager(&mut self) -> Result<()> {
        if let Some(mut manager) = self.manager.take() {
            self.faults
                .note(Fault::beginning(Whom::Manager, Deed::Drained));
            manager.signal(Signal::TERM);
            let status = manager.wait();
            ensure!(
                status.success(),
                "a drained manager ended with {status}: {}",
                manager.log()
            );
        }
        Ok(())
    }

    /// Stops the manager (SIGSTOP) until [`Cluster::continue_manager`].
    pub(crate) fn suspend_manager(&mut self) {
        let fault = Fault::beginning(Whom::Manager, Deed::Suspended);
        self.faults.note(fault);
        self.manager().signal(Signal::STOP);
    }

    /// Lets a stopped manager go on.
    pub(crate) fn continue_manager(&mut self) {
        self.manager().signal(Signal::CONT);
        self.faults.over(Whom::Manager, Deed::Suspended);
    }

    /// After how much silence a worker is lost.
    pub(crate) fn worker_timeout(&self) -> Duration {
        self.worker_timeout
    }

    /// The manager's process.
    pub(crate) fn manager(&mut self) -> &mut Process {
        self.manager.as_mut().expect("the manager was started")
    }

    /// Adds a worker of a phase.
    pub(crate) fn add_worker(&mut self, phase: &str, concurrency: u32) -> usize {
        let [pull, sub, ..] = self.addresses.clone().expect("the manager was started");
        self.add_member(phase, concurrency, &pull, &sub, None)
    }

    /// Adds a worker of a phase with a proxy on each of its ways.
    pub(crate) fn add_worker_behind_proxies(
        &mut self,
        phase: &str,
        concurrency: u32,
    ) -> Result<usize> {
        let ways = Ways {
            pipe: Proxy::start()?,
            results: Proxy::to(&self.address("pull"))?,
            events: Proxy::to(&self.address("sub"))?,
        };
        let (pull, sub) = (ways.results.address(), ways.events.address());
        Ok(self.add_member(phase, concurrency, &pull, &sub, Some(ways)))
    }

    fn add_member(
        &mut self,
        phase: &str,
        concurrency: u32,
        pull: &str,
        sub: &str,
        ways: Option<Ways>,
    ) -> usize {
        let mut arguments = vec![
            phase.to_owned(),
            format!("--concurrency={concurrency}"),
            format!("--push-connect={pull}"),
            format!("--pub-connect={sub}"),
        ];
        if let Some(ways) = &ways {
            arguments.push(format!("--advertise={}", ways.pipe.address()));
        }
        if self.ledgers {
            arguments.push(format!("--folder={}", self.folder.display()));
        }
        self.workers.push(Member {
            arguments,
            process: None,
            ways,
            behind_devices: false,
        });
        let index = self.workers.len() - 1;
        self.start_worker(index);
        index
    }

    /// Changes one way of a worker that is behind proxies.
    pub(crate) fn set_way(&mut self, index: usize, way: Way, weather: Weather) {
        let whom = Whom::Worker(self.worker(index).id());
        let deed = match weather.is_whole() {
            true => Deed::Slowed,
            false => way.deed(),
        };
        if weather != Weather::default() {
            self.faults.note(Fault::beginning(whom, deed));
        }
        let ways = self.workers[index].ways.as_ref();
        ways.expect("the worker is behind proxies")
            .get(way)
            .set(weather);
        if weather == Weather::default() {
            self.faults.over(whom, way.deed());
            self.faults.over(whom, Deed::Slowed);
        }
    }

    /// Resets all connections of one way of a worker; it can be dialled again at once.
    pub(crate) fn reset_way(&mut self, index: usize, way: Way) {
        let whom = Whom::Worker(self.worker(index).id());
        self.faults.note(Fault::beginning(whom, way.deed()));
        let ways = self.workers[index].ways.as_ref();
        ways.expect("the worker is behind proxies")
            .get(way)
            .reset_all();
        self.faults.over(whom, way.deed());
    }

    /// Adds a worker of a phase that also dials another address.
    pub(crate) fn add_worker_dialling(&mut self, phase: &str, address: &str) -> usize {
        let index = self.add_worker(phase, 1);
        self.kill_worker(index);
        let arguments = &mut self.workers[index].arguments;
        arguments.push(format!("--push-connect={address}"));
        arguments.push(format!("--pub-connect={address}"));
        self.start_worker(index);
        index
    }

    /// Adds a worker of a phase with more arguments.
    pub(crate) fn add_worker_with(&mut self, phase: &str, more: &[String]) -> usize {
        let index = self.add_worker(phase, 1);
        self.kill_worker(index);
        self.workers[index].arguments.extend_from_slice(more);
        self.start_worker(index);
        index
    }

    /// Starts a worker that was added before.
    pub(crate) fn start_worker(&mut self, index: usize) {
        // Split, as argh takes no `=`.
        let arguments: Vec<&str> = self.workers[index]
            .arguments
            .iter()
            .flat_map(|argument| match argument.split_once('=') {
                Some((name, value)) => vec![name, value],
                None => vec![argument.as_str()],
            })
            .collect();
        let process = Process::start_program(&self.folder, &self.program, &arguments);
        if let Some(id) = process.told("worker") {
            self.worker_ids.insert(id, process.id());
        }
        if let Some(ways) = &self.workers[index].ways {
            let aimed = ways.pipe.aim(&process.address("bound"));
            aimed.expect("a worker tells a numeric address");
        }
        self.workers[index].process = Some(process);
    }

    /// Kills a worker (SIGKILL).
    pub(crate) fn kill_worker(&mut self, index: usize) {
        if let Some(mut worker) = self.workers[index].process.take() {
            let whom = Whom::Worker(worker.id());
            self.faults.note(Fault::beginning(whom, Deed::Killed));
            worker.kill();
            self.faults.gone(whom);
        }
    }

    /// Ends a worker in good order (SIGTERM).
    pub(crate) fn drain_worker(&mut self, index: usize) -> Result<()> {
        if let Some(mut worker) = self.workers[index].process.take() {
            let whom = Whom::Worker(worker.id());
            self.faults.note(Fault::beginning(whom, Deed::Drained));
            worker.signal(Signal::TERM);
            let status = worker.wait();
            self.faults.gone(whom);
            ensure!(
                status.success(),
                "a drained worker ended with {status}: {}",
                worker.log()
            );
        }
        Ok(())
    }

    /// Stops a worker (SIGSTOP) until [`Cluster::continue_worker`].
    pub(crate) fn suspend_worker(&mut self, index: usize) {
        let whom = Whom::Worker(self.worker(index).id());
        self.faults.note(Fault::beginning(whom, Deed::Suspended));
        self.worker(index).signal(Signal::STOP);
    }

    /// Lets a stopped worker go on.
    pub(crate) fn continue_worker(&mut self, index: usize) {
        let whom = Whom::Worker(self.worker(index).id());
        self.worker(index).signal(Signal::CONT);
        self.faults.over(whom, Deed::Suspended);
    }

    /// Starts the client process, which enqueues until it is told to end.
    pub(crate) fn start_client(&mut self, seed: u64, ms: u64, window: usize) {
        let address = self.address("api");
        self.start_client_at(&address, seed, ms, window);
    }

    /// As [`Cluster::start_client`], with another way to the manager.
    pub(crate) fn start_client_at(&mut self, api: &str, seed: u64, ms: u64, window: usize) {
        let arguments = [
            "client".to_owned(),
            format!("--api={api}"),
            format!("--pipeline={}", self.pipeline),
            format!("--told={}", self.told().display()),
            format!("--seed={seed}"),
            format!("--ms={ms}"),
            format!("--window={window}"),
        ];
        self.others[Role::Client as usize].arguments = arguments.to_vec();
        self.start_other(Role::Client);
    }

    /// What the client process was told.
    pub(crate) fn told(&self) -> PathBuf {
        self.folder.join("told")
    }

    /// Puts a streamer and a forwarder between the workers that are added from now on and
    /// the manager, which starts again to dial them.
    pub(crate) fn add_devices(&mut self) -> Result<()> {
        for (role, name, one, other) in [
            (Role::Streamer, "streamer", "pull", "push"),
            (Role::Forwarder, "forwarder", "subscriber", "publisher"),
        ] {
            let local = "tcp://127.0.0.1";
            let device = &mut self.others[role as usize];
            device.arguments = vec![
                name.to_owned(),
                format!("--{one}={local}"),
                format!("--{other}={local}"),
            ];
            self.start_other(role);
            let process = self.others[role as usize].process.as_ref();
            let process = process.expect("it was started just now");
            let (near, far) = (process.address(one), process.address(other));
            let connect = if role == Role::Streamer {
                "pull"
            } else {
                "sub"
            };
            self.manager_more.push(format!("--{connect}-connect={far}"));
            self.others[role as usize].arguments = vec![
                name.to_owned(),
                format!("--{one}={near}"),
                format!("--{other}={far}"),
            ];
        }
        self.drain_manager()?;
        self.start_manager()?;
        self.faults = FaultLog::default();
        Ok(())
    }

    /// Adds a worker whose results and events go through the devices.
    pub(crate) fn add_worker_behind_devices(&mut self, phase: &str, concurrency: u32) -> usize {
        let near = |role: Role| {
            let device = &self.others[role as usize];
            let near = device.arguments[1].split_once('=');
            near.map(|(_, address)| address.to_owned())
                .expect("the devices were added")
        };
        let (pull, sub) = (near(Role::Streamer), near(Role::Forwarder));
        let index = self.add_member(phase, concurrency, &pull, &sub, None);
        self.workers[index].behind_devices = true;
        index
    }

    /// Starts a client or device that was added before.
    pub(crate) fn start_other(&mut self, role: Role) {
        let program = match role {
            Role::Client => std::env::current_exe().expect("a process knows its own path"),
            Role::Streamer | Role::Forwarder => binaries().join("carbontube"),
        };
        let other = &mut self.others[role as usize];
        let arguments: Vec<&str> = other
            .arguments
            .iter()
            .flat_map(|argument| match argument.split_once('=') {
                Some((name, value)) => vec![name, value],
                None => vec![argument.as_str()],
            })
            .collect();
        let process = Process::start_program(&self.folder, &program, &arguments);
        other.process = Some(process);
        self.other_is_back(role);
    }

    /// Whether there is such a process.
    pub(crate) fn has_other(&self, role: Role) -> bool {
        self.others[role as usize].process.is_some()
    }

    /// A client's or device's process.
    pub(crate) fn other(&mut self, role: Role) -> &mut Process {
        let process = self.others[role as usize].process.as_mut();
        process.expect("it was started")
    }

    /// What happens to a device happens to a way of the workers behind it.
    fn note_other(&mut self, role: Role, deed: Deed) {
        self.faults.note(Fault::beginning(role.whom(), deed));
        let Some(way) = role.way() else { return };
        for worker in self.workers.iter().filter(|worker| worker.behind_devices) {
            if let Some(process) = &worker.process {
                let whom = Whom::Worker(process.id());
                self.faults.note(Fault::beginning(whom, way.deed()));
            }
        }
    }

    fn other_is_back(&mut self, role: Role) {
        for deed in [Deed::Killed, Deed::Drained, Deed::Suspended] {
            self.faults.over(role.whom(), deed);
        }
        let Some(way) = role.way() else { return };
        for worker in self.workers.iter().filter(|worker| worker.behind_devices) {
            if let Some(process) = &worker.process {
                self.faults.over(Whom::Worker(process.id()), way.deed());
            }
        }
    }

    /// Kills a client or device (SIGKILL).
    pub(crate) fn kill_other(&mut self, role: Role) {
        if let Some(mut process) = self.others[role as usize].process.take() {
            self.note_other(role, Deed::Killed);
            process.kill();
        }
    }

    /// Ends a client or device in good order (SIGTERM).
    pub(crate) fn drain_other(&mut self, role: Role) -> Result<()> {
        if let Some(mut process) = self.others[role as usize].process.take() {
            self.note_other(role, Deed::Drained);
            process.signal(Signal::TERM);
            let status = process.wait();
            ensure!(
                status.success(),
                "a {role:?} ended with {status}: {}",
                process.log()
            );
        }
        Ok(())
    }

    /// Stops a client or device (SIGSTOP) until [`Cluster::continue_other`].
    pub(crate) fn suspend_other(&mut self, role: Role) {
        self.note_other(role, Deed::Suspended);
        self.other(role).signal(Signal::STOP);
    }

    /// Lets a stopped client or device go on.
    pub(crate) fn continue_other(&mut self, role: Role) {
        self.other(role).signal(Signal::CONT);
        self.other_is_back(role);
    }

    /// The phase that a worker runs.
    pub(crate) fn phase_of(&self, index: usize) -> String {
        self.workers[index].arguments[0].clone()
    }

    /// A worker's process.
    pub(crate) fn worker(&mut self, index: usize) -> &mut Process {
        let worker = self.workers[index].process.as_mut();
        worker.expect("the worker was started")
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Starts again every worker that has ended, as a supervisor does; how many those were.
    pub(crate) fn revive_workers(&mut self) -> usize {
        let mut revived = 0;
        let since_us = std::mem::replace(&mut self.revived_us, now_us());
        for index in 0..self.workers.len() {
            let worker = self.workers[index].process.as_mut();
            if worker.is_some_and(|worker| worker.is_running()) {
                continue;
            }
            if let Some(ended) = &self.workers[index].process {
                let whom = Whom::Worker(ended.id());
                let fault = Fault::between(whom, Deed::Killed, since_us, now_us());
                self.faults.note(fault);
                self.faults.gone(whom);
            }
            self.start_worker(index);
            revived += 1;
        }
        revived
    }

    /// An address: `pull`, `sub`, `api` or `pub`.
    pub(crate) fn address(&self, kind: &str) -> String {
        let place = ["pull", "sub", "api", "pub"]
            .iter()
            .position(|name| *name == kind);
        let addresses = self.addresses.as_ref().expect("the manager was started");
        addresses[place.expect("one of the four kinds")].clone()
    }

    /// The pipeline's name.
    pub(crate) fn pipeline(&self) -> PipelineName {
        self.pipeline.clone()
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The journal's address.
    pub(crate) fn storage(&self) -> &str {
        &self.storage
    }

    /// Makes another journal the one that the manager is started on.
    pub(crate) fn set_storage(&mut self, storage: String) {
        self.storage = storage;
    }

    /// A client of the manager.
    pub(crate) fn client(&self) -> Result<PipelineClient> {
        self.client_at(&self.address("api"))
    }

    /// A client that reaches the manager at another address.
    pub(crate) fn client_at(&self, address: &str) -> Result<PipelineClient> {
        let options = ClientOptions {
            timeout: Duration::from_secs(60),
            ..ClientOptions::default()
        };
        task::block_on(PipelineClient::connect(&[address.parse()?], options)).context("connecting")
    }

    /// The manager's figures.
    pub(crate) fn stats(&self) -> Result<Stats> {
        Ok(task::block_on(self.client()?.stats())?)
    }

    /// Lets every process live on, and tells their ids.
    pub(crate) fn keep(self) -> Vec<u32> {
        FOLDERS
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
            .retain(|folder| *folder != self.folder);
        let workers = self.workers.into_iter().filter_map(|member| member.process);
        let processes: Vec<Process> = self.manager.into_iter().chain(workers).collect();
        let ids = processes.iter().map(Process::id).collect();
        processes.into_iter().for_each(Process::keep);
        ids
    }
}
