//! What open pages cost a busy pipeline.
//!
//! `cargo run --release -p carbontube-web --example pages_under_load [PAGES] [JOBS] [ROUNDS] [RATE]`
//! A manager with a durable journal, two phases that do nothing and the web interface, all
//! in this process, as in a bundle. Rounds with and without pages take turns; a page reads
//! everything that it is sent. A RATE of 0 enqueues as fast as it is confirmed.

use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use async_std::task::{JoinHandle, spawn};
use carbontube_client::{ClientOptions, NewJob, PipelineClient};
use carbontube_manager::{Manager, ManagerOptions, PhaseDefinition, PipelineDefinition};
use carbontube_protocol::{JobType, PipelineName};
use carbontube_transport::Endpoint;
use carbontube_web::{Web, WebOptions};
use carbontube_worker::{AnyPhase, JobContext, Phase, PhaseError, Worker, WorkerOptions};
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};

const PHASES: [&str; 2] = ["one", "two"];
const TOPICS: &str = "pipelines,workers,points,jobs,logs,progress,notes";

struct Nothing;

impl Phase for Nothing {
    type Instructions = serde_json::Value;
    type Output = ();

    async fn execute(&self, _: &JobContext, _: serde_json::Value) -> Result<(), PhaseError> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    carbontube_transport::init_runtime();
    async_std::task::block_on(measure())
}

/// A page: asks for everything and reads it all.
async fn page(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET /api/v1/stream?topics={TOPICS} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        let n = stream.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (pages, jobs, rounds, rate) = (number(20)?, number(200_000)?, number(3)?, number(20_000)?);
    let folder = tempfile::tempdir()?;
    let phases = PHASES
        .iter()
        .map(|name| JobType::new(name).map(PhaseDefinition::new));
    let name = PipelineName::new("load")?;
    let definition = PipelineDefinition::new(name.clone(), phases.collect::<Result<_, _>>()?)?;
    let free = || -> Result<Endpoint, Box<dyn std::error::Error>> {
        Ok(Endpoint::Bind("tcp://127.0.0.1".parse()?))
    };
    let mut options = ManagerOptions::new(definition);
    options.pull = vec![free()?];
    options.subscribe = vec![free()?];
    options.api = vec!["tcp://127.0.0.1".parse()?];
    options.publish = vec!["tcp://127.0.0.1".parse()?];
    options.storage = format!("sled:{}", folder.path().join("journal").display());
    let manager = Manager::start(options).await?;
    let addresses = manager.addresses().clone();
    spawn(manager.run());
    for phase in PHASES {
        let mut options = WorkerOptions::new(JobType::new(phase)?);
        options.slots = 4;
        options.pull = vec![free()?];
        options.push_connect.clone_from(&addresses.pull);
        options.pub_connect.clone_from(&addresses.subscribe);
        let worker = Worker::start(options, AnyPhase::from_async(Nothing)).await?;
        spawn(worker.run());
    }
    let client = PipelineClient::connect(&addresses.api, ClientOptions::default()).await?;
    println!(
        "{jobs} jobs a round through {} phases, {rate} enqueued a second",
        PHASES.len()
    );
    let mut before = client.stats().await?.success;
    for round in 0..rounds {
        for open in [0, pages] {
            let web = match open {
                0 => None,
                _ => Some(
                    Web::start(WebOptions {
                        port: 0,
                        api: addresses.api.clone(),
                        ..WebOptions::default()
                    })
                    .await?,
                ),
            };
            let readers: Vec<JoinHandle<_>> = web
                .iter()
                .flat_map(|web| (0..open).map(|_| spawn(page(web.address().port()))))
                .collect();
            let began = Instant::now();
            let mut enqueuer = client.enqueuer(&name);
            for n in 0..jobs {
                if rate > 0 && n % 256 == 0 {
                    let due = began + Duration::from_secs_f64(n as f64 / rate as f64);
                    async_io::Timer::at(due).await;
                }
                let instructions = format!("{{\"number\":{n},\"pad\":\"{}\"}}", "x".repeat(160));
                enqueuer.add(NewJob::from_json(instructions)).await?;
            }
            enqueuer.flush().await?;
            let target = before + jobs as u64;
            while client.stats().await?.success < target {
                async_io::Timer::after(Duration::from_millis(5)).await;
            }
            before = target;
            let took = began.elapsed().as_secs_f64();
            println!(
                "round {round}: {open:>3} pages, {:>7.0} jobs/s, {} MiB resident",
                jobs as f64 / took,
                resident_kib() / 1024
            );
            for reader in readers {
                reader.cancel().await;
            }
            drop(web);
        }
    }
    Ok(())
}
