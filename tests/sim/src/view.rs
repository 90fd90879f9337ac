//! What an invariant may look at.

use carbontube_manager::core::{Effect, RecordSeq};
use carbontube_protocol::Timestamp;

use crate::disk::VirtualDisk;
use crate::manager::ManagerNode;
use crate::network::Network;
use crate::oracle::Oracle;
use crate::parameters::Parameters;
use crate::worker::WorkerNode;

/// The world as it is after a step.
///
/// `manager.core()` gives the core of the running process; `worker.session()` the session of
/// a running worker. Both are none while the process is down.
#[derive(Debug)]
pub struct View<'a> {
    /// Virtual time.
    pub now: Timestamp,
    /// How many steps there were.
    pub step: u64,
    /// What was drawn for this world.
    pub parameters: &'a Parameters,
    /// The manager, running or not.
    pub manager: &'a ManagerNode,
    /// The workers, running or not.
    pub workers: &'a [WorkerNode],
    /// What clients were told and phases did.
    pub oracle: &'a Oracle,
    /// All connections.
    pub network: &'a Network,
    /// The disk beneath the manager's store.
    pub disk: &'a VirtualDisk,
    /// What the gate let out in this step, in order.
    pub released: &'a [Effect],
    /// Up to which record of the running manager the disk really has everything.
    pub synced: RecordSeq,
    /// Whether a commit became durable on the disk in this step.
    pub committed: bool,
    /// Whether the manager was started in this step.
    pub started: bool,
    /// Whether the time of faults is over.
    pub healed: bool,
}
