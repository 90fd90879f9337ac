//! Confirmed enqueueing, in ones and in batches, and handing over to a pull address.

use std::time::Duration;

use carbontube_client::{ClientError, ClientOptions, NewJob, PipelineClient, Receipt};
use carbontube_protocol::message::{Code, EnqueueOutcome, JobState};
use carbontube_protocol::{JobId, Limits, Message, decode};
use carbontube_transport::{Endpoint, Options, Pull};
use futures_lite::future;

use crate::scripted::{Scripted, any_port, hasty, job, patient, pipeline, run};

#[test]
fn a_job_is_accepted_only_when_the_manager_says_so() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        assert!(client.is_confirmed());
        let job = job(1).with_delay(Duration::from_secs(2));
        let id = job.id().clone();
        let pipeline = pipeline();
        let mut enqueue = Box::pin(client.enqueue(&pipeline, job));
        let (peer, request) = future::or(async { Some(manager.next_enqueue().await) }, async {
            (&mut enqueue).await.ok();
            None
        })
        .await
        .expect("no receipt before the answer");
        assert_eq!(request.pipeline, pipeline);
        assert_eq!(request.jobs[0].delay_ms, 2000);
        assert_eq!(request.jobs[0].instructions, "{\"number\": 1}");
        manager.accept(&peer, &request);
        assert_eq!(enqueue.await.expect("accepted"), Receipt::Accepted { id });
    });
}

#[test]
fn a_lost_answer_makes_no_second_job() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let pipeline = pipeline();
        let script = async {
            let (_, first) = manager.next_enqueue().await;
            let mut manager = Scripted::bind(manager.leave().await).await;
            let (peer, second) = manager.next_enqueue().await;
            assert_eq!(first, second, "the same jobs under the same ids");
            let id = second.jobs[0].id.clone().expect("an id");
            let state = JobState::Running;
            let outcome = EnqueueOutcome::Duplicate { id, state };
            manager.answer_enqueue(&peer, &second, vec![outcome]);
            manager
        };
        let (receipt, _manager) = future::zip(client.enqueue(&pipeline, job(1)), script).await;
        // The client made the id, so that the duplicate is its own first try.
        assert!(
            matches!(receipt, Ok(Receipt::Accepted { .. })),
            "{receipt:?}"
        );
    });
}

#[test]
fn a_duplicate_of_the_callers_own_id_is_told() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let id = JobId::new("order-17").expect("an id");
        let script = async {
            let (peer, enqueue) = manager.next_enqueue().await;
            let (id, state) = (id.clone(), JobState::Success);
            let outcome = EnqueueOutcome::Duplicate { id, state };
            manager.answer_enqueue(&peer, &enqueue, vec![outcome]);
        };
        let pipeline = pipeline();
        let enqueue = client.enqueue(&pipeline, job(1).with_id(id.clone()));
        let (receipt, ()) = future::zip(enqueue, script).await;
        let state = JobState::Success;
        assert_eq!(receipt.expect("known"), Receipt::Duplicate { id, state });
    });
}

#[test]
fn an_unanswered_request_ends_with_what_is_known() {
    run(async {
        let (manager, client) = Scripted::with_client(hasty()).await;
        let error = client.enqueue(&pipeline(), job(1)).await.unwrap_err();
        assert!(matches!(error, ClientError::NotConfirmed { .. }), "{error}");
        assert!(error.to_string().contains("may or may not"), "{error}");
        assert!(error.hint().expect("a hint").contains("same id"));
        drop(manager);
    });
}

#[test]
fn a_request_that_was_never_sent_says_so() {
    run(async {
        let (manager, client) = Scripted::with_client(hasty()).await;
        manager.leave().await;
        while client.is_connected() {
            future::yield_now().await;
        }
        let error = client.enqueue(&pipeline(), job(1)).await.unwrap_err();
        assert!(matches!(error, ClientError::NotSent { .. }), "{error}");
    });
}

#[test]
fn a_busy_manager_is_asked_again_and_only_for_what_is_open() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let jobs: Vec<NewJob> = (0..3).map(job).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id().clone()).collect();
        let script = async {
            let (peer, all) = manager.next_enqueue().await;
            manager.refuse(&peer, Some(all.request), Code::Busy);
            let (peer, again) = manager.next_enqueue().await;
            assert_eq!(again.jobs, all.jobs);
            let outcomes = ids.iter().enumerate().map(|(number, id)| match number {
                1 => EnqueueOutcome::Rejected {
                    id: Some(id.clone()),
                    code: Code::Journal,
                    message: "the disk is full".to_owned(),
                },
                _ => EnqueueOutcome::Accepted { id: id.clone() },
            });
            manager.answer_enqueue(&peer, &again, outcomes.collect());
            let (peer, one) = manager.next_enqueue().await;
            assert_eq!(one.jobs, all.jobs[1..2]);
            manager.accept(&peer, &one);
        };
        let pipeline = pipeline();
        let (receipts, ()) = future::zip(client.enqueue_batch(&pipeline, jobs), script).await;
        let accepted = ids.iter().cloned().map(|id| Receipt::Accepted { id });
        assert_eq!(receipts.expect("accepted"), accepted.collect::<Vec<_>>());
    });
}

#[test]
fn a_manager_that_stays_busy_is_reported() {
    run(async {
        let (mut manager, client) = Scripted::with_client(hasty()).await;
        let script = async {
            loop {
                let (peer, enqueue) = manager.next_enqueue().await;
                manager.refuse(&peer, Some(enqueue.request), Code::Journal);
            }
        };
        let pipeline = pipeline();
        let error = future::or(client.enqueue(&pipeline, job(1)), script)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(Code::Journal), "{error}");
    });
}

#[test]
fn a_refused_job_is_an_error_that_names_it() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let job = job(1);
        let id = job.id().clone();
        let script = async {
            let (peer, enqueue) = manager.next_enqueue().await;
            let outcome = EnqueueOutcome::Rejected {
                id: Some(id.clone()),
                code: Code::UnknownPipeline,
                message: "there is only audio-pipeline here".to_owned(),
            };
            manager.answer_enqueue(&peer, &enqueue, vec![outcome]);
        };
        let pipeline = pipeline();
        let (receipt, ()) = future::zip(client.enqueue(&pipeline, job), script).await;
        let error = receipt.unwrap_err();
        assert_eq!(error.code(), Some(Code::UnknownPipeline));
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        assert!(error.hint().is_some());
    });
}

#[test]
fn an_answer_with_too_few_outcomes_is_an_error() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let script = async {
            let (peer, enqueue) = manager.next_enqueue().await;
            manager.answer_enqueue(&peer, &enqueue, vec![]);
        };
        let pipeline = pipeline();
        let (receipt, ()) = future::zip(client.enqueue(&pipeline, job(1)), script).await;
        assert!(matches!(receipt, Err(ClientError::Answer { .. })));
    });
}

#[test]
fn bad_instructions_are_refused_before_anything_is_sent() {
    run(async {
        let (_manager, client) = Scripted::with_client(patient()).await;
        for bad in ["[1, 2]", "7", "{\"open\": ", ""] {
            let error = client
                .enqueue(&pipeline(), NewJob::from_json(bad))
                .await
                .unwrap_err();
            assert!(matches!(error, ClientError::Instructions(_)), "{bad}");
        }
        let large = vec![b' '; Limits::default().instructions_bytes_max + 1];
        let error = client.enqueue(&pipeline(), NewJob::from_json(large)).await;
        assert!(error.unwrap_err().hint().expect("a hint").contains("file"));
    });
}

#[test]
fn the_window_bounds_what_is_under_way_and_keeps_the_order() {
    run(async {
        let options = ClientOptions {
            batch_jobs_max: 4,
            window_batches_max: 3,
            ..patient()
        };
        let (mut manager, client) = Scripted::with_client(options).await;
        let pipeline = pipeline();
        let jobs: Vec<NewJob> = (0..40).map(job).collect();
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id().clone()).collect();
        let mut enqueuer = client.enqueuer(&pipeline);
        // Three batches are taken without any answer, the fourth must wait.
        for job in &jobs[..15] {
            enqueuer.add(job.clone()).await.expect("there is room");
        }
        assert_eq!(enqueuer.outstanding_batches(), 3);
        assert!(
            future::poll_once(Box::pin(enqueuer.add(jobs[15].clone())))
                .await
                .is_none(),
            "the window is full"
        );
        assert_eq!(enqueuer.outstanding_batches(), 3);
        let feed = async {
            for job in &jobs[16..] {
                enqueuer.add(job.clone()).await.expect("accepted");
            }
            enqueuer.flush().await.expect("accepted");
            enqueuer.take_receipts()
        };
        let script = async {
            loop {
                let (peer, enqueue) = manager.next_enqueue().await;
                assert!(enqueue.jobs.len() <= 5);
                manager.accept(&peer, &enqueue);
            }
        };
        let receipts = future::or(feed, script).await;
        let came: Vec<JobId> = receipts
            .iter()
            .map(|receipt| receipt.id().clone())
            .collect();
        assert_eq!(came, ids);
        assert!(receipts.iter().all(Receipt::is_confirmed));
    });
}

#[test]
fn large_instructions_make_smaller_batches() {
    run(async {
        let options = ClientOptions {
            batch_bytes_max: 1000,
            ..patient()
        };
        let (mut manager, client) = Scripted::with_client(options).await;
        let pipeline = pipeline();
        let large = |size: usize| NewJob::from_json(format!("{{\"a\": \"{}\"}}", "x".repeat(size)));
        let jobs = [large(600), large(300), large(300), large(5000), large(10)];
        let feed = client.enqueue_batch(&pipeline, jobs);
        let script = async {
            let mut sizes = Vec::new();
            for _ in 0..4 {
                let (peer, enqueue) = manager.next_enqueue().await;
                sizes.push(enqueue.jobs.len());
                manager.accept(&peer, &enqueue);
            }
            sizes
        };
        let (receipts, mut sizes) = future::zip(feed, script).await;
        assert_eq!(receipts.expect("accepted").len(), 5);
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, 1, 2]);
    });
}

#[test]
fn a_pull_address_takes_jobs_without_confirming() {
    run(async {
        let mut pull = Pull::open(Options::default(), [Endpoint::Bind(any_port())])
            .await
            .expect("a free port");
        let client = PipelineClient::connect(&pull.local_addresses(), patient())
            .await
            .expect("a pull address answers");
        assert!(!client.is_confirmed());
        let pipeline = pipeline();
        let job = job(1);
        let id = job.id().clone();
        let receipt = client.enqueue(&pipeline, job).await.expect("handed over");
        assert_eq!(receipt, Receipt::HandedOver { id: id.clone() });
        assert!(!receipt.is_confirmed());
        client
            .close(Duration::from_secs(10))
            .await
            .expect("written");
        let frames = pull.recv().await.expect("the job arrives");
        let Ok(Message::Enqueue(enqueue)) = decode(&frames, &Limits::default()) else {
            panic!("not an enqueue: {frames:?}");
        };
        assert_eq!(enqueue.jobs[0].id, Some(id));
    });
}

#[test]
fn a_pull_address_answers_no_question() {
    run(async {
        let pull = Pull::open(Options::default(), [Endpoint::Bind(any_port())])
            .await
            .expect("a free port");
        let client = PipelineClient::connect(&pull.local_addresses(), patient())
            .await
            .expect("a pull address answers");
        let error = client.info().await.unwrap_err();
        assert!(matches!(error, ClientError::NeedsApi { .. }), "{error}");
        let ids = [JobId::generate()];
        let error = client.wait_all(&pipeline(), ids).unwrap_err();
        assert!(error.hint().expect("a hint").contains("api"));
    });
}
