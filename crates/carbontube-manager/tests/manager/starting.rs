//! What keeps a manager from starting, and what it says then.

use carbontube_manager::{Manager, PhaseDefinition, PipelineDefinition, SocketRole, StartError};
use carbontube_protocol::Codec;
use carbontube_storage::StoreError;
use carbontube_transport::{Endpoint, OpenError};

use crate::support::{Client, Running, job_type, options, pipeline, run};

#[test]
fn second_manager_on_one_journal_is_refused_and_takes_no_port() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        options.storage = format!("sled:{}", folder.path().join("journal").display());
        let manager = Running::start(options.clone()).await;
        let error = Manager::start(options.clone()).await.unwrap_err();
        assert!(
            matches!(
                error,
                StartError::Journal {
                    source: StoreError::Locked { .. }
                }
            ),
            "{error:?}"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("one manager"))
        );
        manager.stop().await;
        Running::start(options).await.stop().await;
    });
}

#[test]
fn port_in_use_is_named() {
    run(async {
        let manager = Running::start(options()).await;
        let mut second = options();
        second.pull = vec![Endpoint::Bind(manager.addresses.pull[0].clone())];
        let error = Manager::start(second).await.unwrap_err();
        match &error {
            StartError::Socket {
                role: SocketRole::Pull,
                source: OpenError::InUse { address },
            } => assert_eq!(*address, manager.addresses.pull[0]),
            other => panic!("{other:?}"),
        }
        let hint = error.hint().unwrap();
        assert!(hint.contains("--pull-bind"), "{hint}");
        manager.stop().await;
    });
}

#[test]
fn journal_of_another_pipeline_is_refused() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sled:{}", folder.path().join("journal").display());
        let theirs = carbontube_storage::OpenOptions::new("photos");
        drop(carbontube_storage::open(&uri, &theirs).unwrap());
        let mut options = options();
        options.storage = uri;
        let error = Manager::start(options).await.unwrap_err();
        assert!(
            matches!(
                error,
                StartError::Journal {
                    source: StoreError::OtherPipeline { .. }
                }
            ),
            "{error:?}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("--storage")));
    });
}

#[test]
fn phase_that_is_gone_while_jobs_are_at_it_is_named_with_the_way_out() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        options.storage = format!("sled:{}", folder.path().join("journal").display());
        let manager = Running::start(options.clone()).await;
        let mut client = Client::connect(&manager, Codec::Bincode).await;
        client.enqueue(&["a"]).await;
        manager.stop().await;
        let join = PhaseDefinition::new(job_type("join"));
        options.definition = PipelineDefinition::new(pipeline(), vec![join]).unwrap();
        let error = Manager::start(options).await.unwrap_err();
        assert!(matches!(error, StartError::Recovery { .. }), "{error:?}");
        assert!(error.to_string().contains("phase cut"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("put phase cut back"), "{hint}");
    });
}

#[test]
fn storage_that_is_no_uri_is_refused() {
    run(async {
        let mut options = options();
        options.storage = "floppy:a".to_owned();
        let error = Manager::start(options).await.unwrap_err();
        assert!(
            matches!(
                error,
                StartError::Journal {
                    source: StoreError::BadUri { .. }
                }
            ),
            "{error:?}"
        );
    });
}
