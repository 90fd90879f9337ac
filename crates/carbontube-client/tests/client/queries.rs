//! Questions and administrative changes.

use carbontube_client::{ClientError, JobId};
use carbontube_protocol::message::{Answer, Code, JobFilter, Query, QueryAnswer, Selector};
use carbontube_protocol::{JobType, Message};
use futures_lite::future;

use crate::scripted::{Scripted, info, patient, run};

async fn answer(manager: &mut Scripted, expected: Query, answer: Answer) {
    let (peer, message) = manager.next().await;
    let Message::Query(request) = message else {
        panic!("expected a query, got {message:?}");
    };
    assert_eq!(request.query, expected);
    let request = request.request;
    manager.send(&peer, QueryAnswer { request, answer });
}

#[test]
fn info_tells_who_the_manager_is() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let (told, _) = future::zip(client.info(), manager.greet()).await;
        assert_eq!(told.expect("answered"), info());
    });
}

#[test]
fn changes_say_how_much_they_changed() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let selector = Selector::Ids(vec![JobId::generate(), JobId::generate()]);
        let phase = Some(JobType::new("encode-video").expect("a name"));
        let (count, skipped) = (1, 1);
        let changed = || Answer::Changed { count, skipped };
        let cases = [
            Query::Retry {
                selector: selector.clone(),
            },
            Query::Cancel {
                selector: selector.clone(),
            },
            Query::Discard {
                selector: selector.clone(),
            },
            Query::Pause {
                phase: phase.clone(),
            },
            Query::Resume { phase: None },
            Query::Drain { worker: None },
        ];
        for query in cases {
            let ask = async {
                match query.clone() {
                    Query::Retry { selector } => client.retry(selector).await,
                    Query::Cancel { selector } => client.cancel(selector).await,
                    Query::Discard { selector } => client.discard(selector).await,
                    Query::Pause { phase } => client.pause(phase).await,
                    Query::Resume { phase } => client.resume(phase).await,
                    Query::Drain { worker } => client.drain(worker).await,
                    other => panic!("no change: {other:?}"),
                }
            };
            let script = answer(&mut manager, query.clone(), changed());
            let (told, ()) = future::zip(ask, script).await;
            let told = told.expect("answered");
            assert_eq!((told.count, told.skipped), (1, 1), "{query:?}");
        }
    });
}

#[test]
fn a_page_of_jobs_says_where_the_next_begins() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let expected = Query::Jobs {
            filter: JobFilter::default(),
            after: Some("here".to_owned()),
            limit: 10,
        };
        let page = Answer::Jobs {
            jobs: vec![],
            next: Some("there".to_owned()),
        };
        let script = answer(&mut manager, expected, page);
        let ask = client.jobs(JobFilter::default(), Some("here".to_owned()), 10);
        let (told, ()) = future::zip(ask, script).await;
        assert_eq!(told.expect("answered").next.as_deref(), Some("there"));
    });
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let script = answer(&mut manager, Query::Workers, Answer::Info(info()));
        let (told, ()) = future::zip(client.workers(), script).await;
        assert!(matches!(told, Err(ClientError::Answer { .. })));
    });
}

#[test]
fn a_refused_question_keeps_its_code() {
    run(async {
        let (mut manager, client) = Scripted::with_client(patient()).await;
        let script = async {
            let (peer, message) = manager.next().await;
            let Message::Query(request) = message else {
                panic!("expected a query, got {message:?}");
            };
            manager.refuse(&peer, Some(request.request), Code::UnknownJob);
        };
        let id = JobId::generate();
        let (told, ()) = future::zip(client.job(&id), script).await;
        assert_eq!(told.unwrap_err().code(), Some(Code::UnknownJob));
    });
}
