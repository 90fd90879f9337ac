//! ZeroMQ sockets for Carbontube that reconnect, linger, bound and count, behind a front door.
//!
//! This is the only crate that names `zeromq`, and no crate socket ever touches
//! the network: the front door owns every TCP and ipc connection, checks what
//! peers send before it is let in, and measures what is really written.
//! Nothing that a peer sends can end or bloat the process. Each connection has a crate
//! socket to itself, see `connection.rs`.
//!
//! | socket | peers | full queue | lost connection |
//! |---|---|---|---|
//! | [`Pull`] | many | peers wait (TCP back-pressure) | others go on |
//! | [`Push`] | one, dialled | `Full`, or wait | dialled again; unwritten messages are sent again |
//! | [`FanOut`] | many | wait | unwritten messages go to another peer |
//! | [`Publish`] | many | whole messages dropped and counted | subscriber forgotten |
//! | [`Subscribe`] | many | peers wait or drop | dialled again, subscribed again |
//! | [`Router`] | many | peer disconnected and counted | `Gone` |
//! | [`Dealer`] | one, dialled | `Full`, or wait | dialled again under a fresh identity |

// Writing to stdout or stderr may fail, panic or wait for ever.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod backlog;
mod complaints;
mod connection;
mod counters;
mod dealer;
mod device;
mod dial;
mod dials;
mod door;
mod error;
mod fan_out;
mod inbox;
mod lane;
mod link;
mod message;
mod options;
mod origin;
mod outlet;
mod publish;
mod pull;
mod push;
mod resolve;
mod router;
mod runtime;
mod subscribe;
#[cfg(feature = "testing")]
pub mod testing;
mod turns;
mod watchdog;

pub use carbontube_protocol::{Address, AddressError, Host};
pub use complaints::Complaints;
pub use counters::CountersSnapshot;
pub use dealer::Dealer;
pub use device::{Forwarder, Streamer};
pub use dial::{Dialled, dial};
pub use dials::{DialBudget, DialPass};
pub use door::Hurry;
pub use error::{
    CloseOutcome, Closed, DialError, NotConnected, OpenError, Reason, Rejected, RouteError,
};
pub use fan_out::FanOut;
pub use link::{LinkState, LinkWatch};
pub use message::{Message, add_delimiter, take_delimiter};
pub use options::{Endpoint, Options};
pub use origin::Origin;
pub use publish::Publish;
pub use pull::Pull;
pub use push::Push;
pub use resolve::{Found, Resolver};
pub use router::{PeerId, Router, RouterSender};
pub use runtime::init_runtime;
pub use subscribe::Subscribe;
pub use turns::{Placed, Turns};
pub use watchdog::{ExecutorProbe, Watchdog};
