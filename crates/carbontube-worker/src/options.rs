//! What a worker needs to know to start, and why it may not.

use std::path::PathBuf;
use std::time::Duration;

use carbontube_protocol::{Address, AddressError, JobType, Limits};
use carbontube_transport::{Endpoint, OpenError};

/// The most slots of one worker.
pub(crate) const SLOTS_MAX: u32 = 2048;
/// The most addresses that results go to.
pub(crate) const ROUTES_MAX: usize = 32;

/// How a worker runs.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The phase that it runs.
    pub job_type: JobType,
    /// How many attempts it runs at once, from 1 to 2048. Default 1.
    pub slots: u32,
    /// Where attempts come from. Default: any free port on every interface.
    pub pull: Vec<Endpoint>,
    /// Where results go: the managers' pull addresses, or a device's.
    pub push_connect: Vec<Address>,
    /// Where events go: the managers' sub addresses, or a device's.
    pub pub_connect: Vec<Address>,
    /// The address to tell managers, when they reach this worker by another one than
    /// it sees itself. Needed when every pull endpoint is dialled: it is then the
    /// address where the device takes work in.
    pub advertise: Option<Address>,
    /// How long an attempt may run; overrides what the manager says.
    pub timeout: Option<Duration>,
    /// How long running attempts may go on when the worker drains. Default 30 s.
    pub grace: Duration,
    /// Every size that a peer can influence.
    pub limits: Limits,
}

impl WorkerOptions {
    /// Options for a phase, with the defaults.
    pub fn new(job_type: JobType) -> Self {
        let anywhere = Address::Tcp {
            host: carbontube_protocol::Host::Any,
            port: None,
        };
        WorkerOptions {
            job_type,
            slots: 1,
            pull: vec![Endpoint::Bind(anywhere)],
            push_connect: Vec::new(),
            pub_connect: Vec::new(),
            advertise: None,
            timeout: None,
            grace: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The number of slots is out of range.
    #[error("a worker has from 1 to {SLOTS_MAX} slots, {found} were asked for")]
    Slots {
        /// What was asked for.
        found: u32,
    },
    /// Nothing says where results or events go, or too much does.
    #[error(
        "a worker needs from 1 to {ROUTES_MAX} addresses to send its {what} to, {found} were given"
    )]
    Addresses {
        /// What would be sent there.
        what: &'static str,
        /// How many were given.
        found: usize,
    },
    /// Nothing says where attempts come from.
    #[error("a worker needs an address to receive attempts on")]
    NoPull,
    /// The worker listens nowhere itself, and managers cannot know the device's address.
    #[error(
        "a worker that only dials a device for its attempts must be told which address of the device to advertise"
    )]
    NoAdvertise,
    /// A socket could not be opened.
    #[error("cannot open the socket for {what}")]
    Socket {
        /// What the socket is for.
        what: &'static str,
        /// Why not.
        source: OpenError,
    },
    /// The address to announce cannot be reached by anyone.
    #[error("cannot announce this worker's address")]
    Advertise {
        /// What is wrong with it.
        source: AddressError,
    },
    /// A command phase without a command.
    #[error("the command is empty")]
    CommandEmpty,
    /// The command's program does not exist.
    #[error("cannot find the program {program:?}{}", searched(.path))]
    CommandNotFound {
        /// The program, as the command names it.
        program: String,
        /// The search path, if it was searched.
        path: Option<String>,
    },
    /// The command's program is no executable file.
    #[error("the program {} cannot be executed: {problem}", .path.display())]
    CommandNotExecutable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder in which the command would run is not there.
    #[error("the command's folder {} cannot be used: {problem}", .dir.display())]
    CommandDir {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for blocking phases")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

fn searched(path: &Option<String>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| format!(" in {path}"))
}
