//! How a manager is set up: what it serves, where, and where its journal is.

use carbontube_protocol::Address;
use carbontube_transport::{self as transport, Endpoint};

use crate::core::CoreOptions;
use crate::definition::PipelineDefinition;

/// All that a manager needs to know before it starts.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// The pipeline that it manages.
    pub definition: PipelineDefinition,
    /// Settings of its decisions.
    pub core: CoreOptions,
    /// Where results and unconfirmed jobs come in.
    pub pull: Vec<Endpoint>,
    /// Where workers' events come in.
    pub subscribe: Vec<Endpoint>,
    /// Where clients ask.
    pub api: Vec<Address>,
    /// Where the manager's own events go out.
    pub publish: Vec<Address>,
    /// Where the journal is: `memory:`, `sled:PATH` or `redis://HOST:PORT/DB`.
    pub storage: String,
    /// Limits and times of the sockets.
    pub transport: transport::Options,
}

impl ManagerOptions {
    /// The defaults: the well-known ports on the loopback interface, and a sled journal
    /// `./carbontube-journal/NAME`.
    #[must_use]
    pub fn new(definition: PipelineDefinition) -> Self {
        let local = |port| Address::tcp("127.0.0.1", port);
        let core = CoreOptions::default();
        ManagerOptions {
            storage: format!("sled:./carbontube-journal/{}", definition.name()),
            transport: transport::Options::with_limits(&core.limits),
            definition,
            core,
            pull: vec![Endpoint::Bind(local(5050))],
            subscribe: vec![Endpoint::Bind(local(6000))],
            api: vec![local(5051)],
            publish: vec![local(6001)],
        }
    }
}

/// Where a started manager listens, with real ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagerAddresses {
    /// The PULL addresses that it listens on.
    pub pull: Vec<Address>,
    /// The SUB addresses that it listens on.
    pub subscribe: Vec<Address>,
    /// The ROUTER addresses.
    pub api: Vec<Address>,
    /// The PUB addresses.
    pub publish: Vec<Address>,
}
