//! The executor and the process limits that every socket relies on.

use std::sync::Once;

use async_global_executor::GlobalExecutorConfig;

/// The least number of executor threads; fewer let one stuck task starve the others.
const THREADS_MIN: usize = 4;

/// Prepares the process: executor threads and the limit of open files.
///
/// Every socket calls this when it opens.
/// Call it first thing in `main` when anything else may start the executor before.
pub fn init_runtime() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        raise_open_files();
        async_global_executor::init_with_config(
            GlobalExecutorConfig::default().with_min_threads(THREADS_MIN),
        );
    });
}

/// The number of files this process may open.
pub(crate) fn open_files_max() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
}
