//! The worker against a scripted manager, over real sockets.

mod blocking;
mod command;
mod device;
mod drain;
mod resend;
mod run;
mod scripted;
