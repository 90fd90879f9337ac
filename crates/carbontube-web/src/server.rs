//! The server: connections in, answers out, all of it bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_io::Timer;
use async_std::net::{TcpListener, TcpStream};
use async_std::task::{JoinHandle, spawn};
use carbontube_transport::Complaints;
use futures_lite::future;
use futures_lite::io::AsyncWriteExt;

use crate::api::App;
use crate::error::StartError;
use crate::options::WebOptions;
use crate::state::Hub;
use crate::{connection, watch};

/// How long telling a peer that there is no room may take.
const REFUSE_MAX: Duration = Duration::from_secs(2);
/// What a peer is told when there are too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 5\r\n\r\n";

/// A running web interface; it ends when this is dropped or stopped.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    warning: Option<String>,
    stop: Sender<()>,
    stopped: Receiver<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// Ends a web interface from elsewhere.
#[derive(Clone, Debug)]
pub struct WebHandle(Sender<()>);

impl WebHandle {
    /// Takes no more connections and ends [`Web::run`].
    pub fn stop(&self) {
        self.0.close();
    }
}

impl Web {
    /// Listens and begins to follow the managers; those that are not there yet are shown
    /// as such.
    ///
    /// # Errors
    /// When there is no manager to follow, or the port is taken.
    pub async fn start(options: WebOptions) -> Result<Web, StartError> {
        carbontube_transport::init_runtime();
        if options.api.is_empty() {
            return Err(StartError::NoManager);
        }
        for address in options.api.iter().chain(&options.subscribe) {
            address
                .check_connectable()
                .map_err(|error| StartError::Address {
                    address: address.to_string(),
                    reason: error.to_string(),
                })?;
        }
        let failed = |source| StartError::Listen {
            host: options.host.clone(),
            port: options.port,
            source,
        };
        let host = options.host.trim_start_matches('[').trim_end_matches(']');
        let listener = TcpListener::bind((host, options.port))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let warning = (!address.ip().is_loopback() && options.token.is_none()).then(|| {
            format!(
                "the web interface listens on {address} without a token: everybody who reaches it may {}",
                if options.read_only { "see all jobs" } else { "see and change all jobs" }
            )
        });
        let options = Arc::new(options);
        let hub = Arc::new(Hub::new(&options.api));
        let mut tasks = Vec::new();
        for view in &hub.views {
            tasks.push(spawn(watch::watch(
                hub.clone(),
                view.clone(),
                options.clone(),
            )));
        }
        if !options.subscribe.is_empty() {
            let (hub, options) = (hub.clone(), options.clone());
            tasks.push(spawn(async move {
                watch::follow(&hub, &options.subscribe, &options.limits).await;
            }));
        }
        let (stop, stopped) = async_channel::bounded(1);
        let app = Arc::new(App::new(options, hub));
        tasks.push(spawn(accept(listener, stopped.clone(), app)));
        Ok(Web {
            address,
            warning,
            stop,
            stopped,
            tasks,
        })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address to open in a browser.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}/")
    }

    /// What its owner should know about who can reach it.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// What ends it.
    pub fn handle(&self) -> WebHandle {
        WebHandle(self.stop.clone())
    }

    /// Serves until it is stopped.
    pub async fn run(mut self) {
        // Nothing is ever sent: it ends when it is closed.
        let _ = self.stopped.recv().await;
        for task in std::mem::take(&mut self.tasks) {
            task.cancel().await;
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.close();
        for task in std::mem::take(&mut self.tasks) {
            // Dropping an async-std task would leave it running.
            spawn(async move {
                task.cancel().await;
            });
        }
    }
}

async fn accept(listener: TcpListener, stopped: Receiver<()>, app: Arc<App>) {
    let complaints = Complaints::new();
    loop {
        let stop = async {
            let _ = stopped.recv().await;
            None
        };
        let accepted = future::or(stop, async { Some(listener.accept().await) }).await;
        let (stream, peer) = match accepted {
            None => return,
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => {
                log::debug!("a connection was not accepted: {error}");
                // Out of file descriptors, most likely: leave others the time to close.
                Timer::after(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = app.places.take(peer.ip());
        if place.as_ref().is_none_or(|place| place.is_brief)
            && let Some(hidden) = complaints.admit("full")
        {
            log::warn!(
                "no place for a connection of {}: there are too many ({hidden} not shown)",
                peer.ip()
            );
        }
        let Some(place) = place else {
            spawn(refuse(stream));
            continue;
        };
        let (app, stopped) = (app.clone(), stopped.clone());
        spawn(async move {
            // A page's stream has no end of its own.
            let stop = async {
                let _ = stopped.recv().await;
            };
            let serve = async {
                match place.is_brief {
                    true => connection::serve_health(stream, peer, app).await,
                    false => connection::serve(stream, peer, app).await,
                }
            };
            future::or(stop, serve).await;
            drop(place);
        });
    }
}

async fn refuse(mut stream: TcpStream) {
    let write = async {
        let _ = stream.write_all(FULL).await;
    };
    future::or(write, async {
        Timer::after(REFUSE_MAX).await;
    })
    .await;
}
