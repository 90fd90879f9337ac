//! The manager as its owner sees it: start it, ask where it listens, run it, end it.

use async_channel::{Receiver, Sender};
use carbontube_storage::{OpenOptions, Store, StoreError};
use carbontube_transport::{Endpoint, Publish, Pull, Router, Subscribe};

use crate::error::{RunError, SocketRole, StartError};
use crate::options::{ManagerAddresses, ManagerOptions};

/// A manager that serves one pipeline.
#[derive(Debug)]
pub struct Manager {
    addresses: ManagerAddresses,
    handle: ManagerHandle,
    stops: Receiver<Ending>,
}

/// How the owner wants a manager to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Drain,
    Now,
}

/// Ends a manager, from any task or thread.
#[derive(Clone, Debug)]
pub struct ManagerHandle {
    stops: Sender<Ending>,
}

impl ManagerHandle {
    /// Takes no more jobs, lets what runs finish, then ends the manager.
    pub fn drain(&self) {
        let _ = self.stops.try_send(Ending::Drain);
    }

    /// Ends the manager at once. Everything confirmed is in the journal.
    pub fn stop_now(&self) {
        let _ = self.stops.try_send(Ending::Now);
    }
}

impl Manager {
    /// Opens the journal, takes up what it holds, and opens the sockets.
    ///
    /// # Errors
    /// [`StartError`] names the address or the journal that is at fault.
    pub async fn start(options: ManagerOptions) -> Result<Manager, StartError> {
        let uri = options.storage.clone();
        let pipeline = OpenOptions::new(options.definition.name().as_str());
        Self::start_on(options, move || carbontube_storage::open(&uri, &pipeline)).await
    }

    /// As [`Manager::start`], on a store of the caller's own.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub async fn start_on(
        options: ManagerOptions,
        open: impl FnOnce() -> Result<Box<dyn Store>, StoreError> + Send + 'static,
    ) -> Result<Manager, StartError> {
        let _store = open().map_err(|source| StartError::Journal { source })?;
        let socket = |role| move |source| StartError::Socket { role, source };
        let bind = |addresses: &[_]| {
            addresses
                .iter()
                .cloned()
                .map(Endpoint::Bind)
                .collect::<Vec<_>>()
        };
        let transport = &options.transport;
        let pull = Pull::open(transport.clone(), options.pull)
            .await
            .map_err(socket(SocketRole::Pull))?;
        let subscribe = Subscribe::open(transport.clone(), options.subscribe, [""])
            .await
            .map_err(socket(SocketRole::Subscribe))?;
        let api = Router::open(transport.clone(), bind(&options.api))
            .await
            .map_err(socket(SocketRole::Api))?;
        let publish = Publish::open(transport.clone(), bind(&options.publish))
            .await
            .map_err(socket(SocketRole::Publish))?;
        let (sender, stops) = async_channel::bounded(8);
        Ok(Manager {
            addresses: ManagerAddresses {
                pull: pull.local_addresses(),
                subscribe: subscribe.local_addresses(),
                api: api.local_addresses(),
                publish: publish.local_addresses(),
            },
            handle: ManagerHandle { stops: sender },
            stops,
        })
    }

    /// Where the manager listens, with real ports.
    pub fn addresses(&self) -> &ManagerAddresses {
        &self.addresses
    }

    /// What ends the manager.
    pub fn handle(&self) -> ManagerHandle {
        self.handle.clone()
    }

    /// Serves until the manager is drained or stopped.
    ///
    /// # Errors
    /// [`RunError`] when it had to end by itself.
    pub async fn run(self) -> Result<(), RunError> {
        let _ = self.stops.recv().await;
        Ok(())
    }
}
