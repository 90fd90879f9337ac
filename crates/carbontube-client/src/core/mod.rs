//! What a client decides, without a socket, a clock or a task.
//!
//! Everything that happens is a `handle_*` of [`Core`], with the time it happens at;
//! what is to be done about it comes out of its `poll_*`. The tasks around it only
//! carry: see `conversation.rs`.
//!
//! ```text
//!  callers ──enqueue, ask, wait──►  Core  ──poll_news──► callers
//!                                  │  ▲
//!  sockets ◄──poll_message─────────┘  └──handle_message, handle_connected, … ── sockets
//! ```
#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "public for the simulator alone")
)]

mod call;
mod links;
mod machine;
mod pauses;
mod requests;
#[cfg(test)]
mod tests;
mod window;

pub use call::News;
pub use links::{Condition, Links};
pub use machine::{CallId, Core};
pub use pauses::Pauses;
pub use window::Window;
