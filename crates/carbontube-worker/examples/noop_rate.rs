//! How many jobs a second one worker takes, runs and returns when the phase does nothing.
//!
//! `cargo run --release -p carbontube-worker --example noop_rate [JOBS] [SLOTS]`
//! A scripted manager in the same process keeps 2,000 attempts under way.

use std::time::Instant;

use bytes::Bytes;
use carbontube_protocol::message::{Ack, Dispatch, DispatchedJob, PipeHead};
use carbontube_protocol::{
    AttemptId, Codec, JobId, JobType, Limits, ManagerId, Message, PipelineName, decode, encode,
};
use carbontube_transport::{Endpoint, Options, Pull, Push, Subscribe};
use carbontube_worker::{AnyPhase, JobContext, Phase, PhaseError, Worker, WorkerOptions};

const BATCH: u64 = 200;
const UNDER_WAY: u64 = 2_000;

struct Nothing;

impl Phase for Nothing {
    type Instructions = serde_json::Value;
    type Output = ();

    async fn execute(&self, _: &JobContext, _: serde_json::Value) -> Result<(), PhaseError> {
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    carbontube_transport::init_runtime();
    async_std::task::block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let jobs: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let slots: u32 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let free = || -> anyhow::Result<Endpoint> { Ok(Endpoint::Bind("tcp://127.0.0.1:0".parse()?)) };
    let mut pull = Pull::open(Options::default(), [free()?]).await?;
    let subscribe = Subscribe::open(Options::default(), [free()?], [""]).await?;
    let job_type = JobType::new("nothing")?;
    let mut options = WorkerOptions::new(job_type.clone());
    options.slots = slots;
    options.pull = vec![free()?];
    options.push_connect = pull.local_addresses();
    options.pub_connect = subscribe.local_addresses();
    let worker = Worker::start(options, AnyPhase::from_async(Nothing)).await?;
    let pipe = Push::open(Options::default(), worker.address().clone()).await?;

    let pipeline = PipelineName::new("rate")?;
    let instructions = Bytes::from(format!(r#"{{"path":"{}"}}"#, "x".repeat(189)));
    let mut sequence = 0;
    let mut head = || {
        sequence += 1;
        PipeHead {
            manager: ManagerId::from_bytes([1; 16]),
            epoch: 1,
            sequence,
        }
    };
    let begun = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < jobs {
        while sent < jobs && sent - done < UNDER_WAY {
            let job = |counter: u64| DispatchedJob {
                attempt: AttemptId { epoch: 1, counter },
                job: JobId::from_uuid_bytes(u128::from(counter).to_be_bytes()),
                phase: 0,
                job_type: job_type.clone(),
                number: 1,
                timeout_ms: 600_000,
                traceparent: None,
                instructions: instructions.clone(),
            };
            let dispatch = Dispatch {
                head: head(),
                worker: None,
                pipeline: pipeline.clone(),
                jobs: (sent..sent + BATCH).map(job).collect(),
            };
            pipe.send(encode(&dispatch.into(), Codec::Bincode)).await?;
            sent += BATCH;
        }
        let frames = pull.recv().await?;
        if let Message::Results(results) = decode(&frames, &Limits::default())? {
            done += results.results.len() as u64;
            let ack = Ack {
                head: head(),
                route: results.route,
                attempts: results
                    .results
                    .iter()
                    .map(|result| result.attempt)
                    .collect(),
            };
            pipe.send(encode(&ack.into(), Codec::Bincode)).await?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{done} jobs in {seconds:.2} s with {slots} slots: {:.0} jobs/s",
        done as f64 / seconds
    );
    worker.handle().stop_now();
    worker.run().await;
    Ok(())
}
