//! ZeroMQ sockets for Carbontube that reconnect, linger, bound and count, behind a front door.
//!
//! This is the only crate that names `zeromq`, and no crate socket ever touches
//! the network: the front door owns every TCP and ipc connection, checks what
//! peers send before it is let in, and measures what is really written.
//! Nothing that a peer sends can end or bloat the process.
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

mod address;
mod counters;
mod device;
mod error;
mod message;
mod options;
mod runtime;
mod socket;

pub use address::{Address, AddressError};
pub use counters::CountersSnapshot;
pub use device::{Forwarder, Streamer};
pub use error::{
    CloseOutcome, Closed, DialError, NotConnected, OpenError, Reason, Rejected, RouteError,
};
pub use message::{Message, add_delimiter, take_delimiter};
pub use options::{Endpoint, Options};
pub use runtime::init_runtime;
pub use socket::{
    Dealer, Dialled, FanOut, LinkState, LinkWatch, PeerId, Publish, Pull, Push, Router,
    RouterSender, Subscribe, dial,
};
