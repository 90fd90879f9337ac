//! The deterministic simulator: one seed, one world, one outcome.
//!
//! A [`World`](world::World) holds a manager, workers and clients that run the product's
//! real code over a virtual network, a virtual disk and virtual time. It never reads a
//! clock, starts no thread and iterates over nothing unordered, so that a seed replays
//! exactly; many worlds run side by side on threads of their own.
//!
//! Who does what:
//! - [`parameters`] draws everything that is set from the seed;
//! - [`context`] is what a node acts through: time, chance, network, oracle, trace;
//! - [`network`] are connections with real frames in them, and what goes wrong with those;
//! - [`manager`], [`worker`] and [`client`] are the nodes, [`operator`] interferes;
//! - [`disk`] is beneath the manager's store;
//! - [`oracle`] knows what clients were told and what phases did, and nothing else;
//! - [`invariants`] must hold after every step, given a [`View`](view::View);
//! - [`mutations`] are deliberate faults that the invariants have to find.

pub mod client;
pub mod context;
pub mod disk;
pub mod invariants;
pub mod manager;
pub mod mutations;
pub mod network;
pub mod operator;
pub mod oracle;
pub mod parameters;
pub mod runner;
pub mod trace;
pub mod view;
pub mod worker;
pub mod world;
