//! Waiting for jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use carbontube_client::{ClientError, ClientOptions, EndedJob, JobId};
use carbontube_protocol::message::{Code, Ended, JobState};
use futures_lite::future;

use crate::scripted::{Scripted, patient, pipeline, run};

fn ids(count: usize) -> Vec<JobId> {
    (0..count).map(|_| JobId::generate()).collect()
}

#[test]
fn a_job_comes_with_its_result() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let id = JobId::generate();
        let script = async {
            let (peer, wait) = manager.next_wait().await;
            assert_eq!(wait.ids, std::slice::from_ref(&id));
            manager.end(&peer, wait.request, &wait.ids);
        };
        let pipeline = pipeline();
        let (ended, ()) = future::zip(client.wait(&pipeline, &id, None), script).await;
        let ended = ended.expect("it ended");
        assert_eq!(ended.state, Some(JobState::Success));
        assert_eq!(ended.result, format!("{{\"id\":\"{id}\"}}"));
    });
}

#[test]
fn each_job_comes_once_whatever_the_manager_repeats() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let ids = ids(4);
        let mut stream = client
            .wait_all(&pipeline(), ids.iter().cloned())
            .expect("an api address");
        let (peer, wait) = manager.next_wait().await;
        manager.end(&peer, wait.request, &ids[..2]);
        let mut came = Vec::new();
        for _ in 0..2 {
            came.push(stream.next().await.expect("more").expect("ended").id);
        }
        assert_eq!(stream.remaining(), 2);
        // The manager restarts: it is asked for the others, and tells the first two all the same.
        let mut manager = Scripted::bind(manager.leave().await).await;
        let (peer, again) = manager.next_wait().await;
        let open: BTreeSet<_> = again.ids.iter().cloned().collect();
        assert_eq!(open, ids[2..].iter().cloned().collect());
        manager.end(&peer, again.request, &ids[..3]);
        manager.end(&peer, again.request, &ids[1..]);
        while let Some(job) = stream.next().await {
            came.push(job.expect("ended").id);
        }
        assert_eq!(came.len(), 4);
        assert_eq!(
            came.into_iter().collect::<BTreeSet<_>>(),
            ids.into_iter().collect()
        );
    });
}

#[test]
fn many_jobs_are_asked_for_in_several_requests() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let ids = ids(client.options().limits.batch_jobs_max + 5);
        let mut stream = client
            .wait_all(&pipeline(), ids.iter().cloned())
            .expect("an api address");
        for _ in 0..2 {
            let (peer, wait) = manager.next_wait().await;
            manager.end(&peer, wait.request, &wait.ids);
        }
        let mut count = 0;
        while let Some(job) = stream.next().await {
            job.expect("ended");
            count += 1;
        }
        assert_eq!(count, ids.len());
    });
}

#[test]
fn an_unknown_job_comes_without_a_state() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let id = JobId::generate();
        let script = async {
            let (peer, wait) = manager.next_wait().await;
            let jobs = vec![EndedJob {
                id: id.clone(),
                state: None,
                error: None,
                result: Default::default(),
            }];
            let request = wait.request;
            manager.send(&peer, Ended { request, jobs });
        };
        let pipeline = pipeline();
        let (ended, ()) = future::zip(client.wait(&pipeline, &id, None), script).await;
        assert_eq!(ended.expect("an answer").state, None);
    });
}

#[test]
fn a_busy_manager_is_asked_again_and_a_refusal_is_told() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let script = async {
            let (peer, wait) = manager.next_wait().await;
            manager.refuse(&peer, Some(wait.request), Code::Busy);
            let (peer, wait) = manager.next_wait().await;
            manager.refuse(&peer, Some(wait.request), Code::UnknownPipeline);
        };
        let (pipeline, id) = (pipeline(), JobId::generate());
        let (ended, ()) = future::zip(client.wait(&pipeline, &id, None), script).await;
        assert_eq!(ended.unwrap_err().code(), Some(Code::UnknownPipeline));
    });
}

#[test]
fn the_callers_timeout_ends_the_wait() {
    run(async {
        let (_manager, client) = Scripted::with_client(patient()).await;
        let timeout = Some(Duration::from_millis(50));
        let ended = client.wait(&pipeline(), &JobId::generate(), timeout).await;
        assert!(matches!(ended, Err(ClientError::StillRunning { .. })));
    });
}

#[test]
fn a_manager_that_stays_away_ends_the_wait() {
    run(async {
        let options = ClientOptions {
            absence_max: Duration::from_millis(200),
            ..patient()
        };
        let (mut manager, client) = Scripted::with_client(options).await;
        let script = async {
            manager.next_wait().await;
            manager.leave().await;
        };
        let (pipeline, id) = (pipeline(), JobId::generate());
        let (ended, ()) = future::zip(client.wait(&pipeline, &id, None), script).await;
        let error = ended.unwrap_err();
        assert!(
            matches!(error, ClientError::Absent { jobs: 1, .. }),
            "{error}"
        );
    });
}
