//! The web interface in front of a cluster, as a process of its own.

use carbontube_tests::Process;

use crate::cluster::{Cluster, binaries};

/// A running `carbontube web`. It ends when this is dropped.
pub(crate) struct Page(Process);

impl Page {
    /// Starts it on a free port of the loopback interface.
    pub(crate) fn open(cluster: &Cluster) -> Page {
        Page::open_with(cluster, &[])
    }

    /// The same with more arguments.
    pub(crate) fn open_with(cluster: &Cluster, more: &[&str]) -> Page {
        let api = format!("--api-connect={}", cluster.address("api"));
        let program = binaries().join("carbontube");
        let mut arguments = vec!["web", "--port=0", &api];
        arguments.extend(more);
        Page(Process::start_program(
            cluster.folder(),
            &program,
            &arguments,
        ))
    }

    /// The address for a browser, with a slash at the end.
    pub(crate) fn url(&self) -> String {
        self.0.told("url").expect("web tells its address")
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.0
    }

    /// Lets it live on, and tells its process id.
    pub(crate) fn keep(self) -> u32 {
        let id = self.0.id();
        self.0.keep();
        id
    }
}
