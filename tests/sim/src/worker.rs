//! A worker's process.

use carbontube_worker::testing::Session;

/// A worker, running or not.
#[derive(Debug)]
pub struct WorkerNode {
    session: Option<Session>,
}

impl WorkerNode {
    /// The session of the running process.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}
