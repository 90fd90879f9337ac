//! Pipelines in Rust: their phases, and how each is retried.

use std::time::Duration;

use carbontube_manager::{Backoff, PhaseDefinition, PipelineDefinition};
use carbontube_protocol::{JobType, PipelineName};
use carbontube_worker::{AnyPhase, BlockingPhase, Phase};

use crate::catalogue::{PhaseEntry, PipelineEntry, Work};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// A pipeline with phases in Rust, for [`run`](crate::run).
///
/// [`attempts`](Self::attempts), [`backoff`](Self::backoff), [`timeout`](Self::timeout)
/// and [`concurrency`](Self::concurrency) are for the phase before them. Names are
/// checked when the pipeline is run.
///
/// ```no_run
/// # use carbontube::prelude::*;
/// # use std::time::Duration;
/// # fn pipeline(encode: AnyPhase, split: AnyPhase) -> Pipeline {
/// Pipeline::new("video-encoder-pipeline")
///     .any_phase("encode-video", encode)
///     .timeout(Duration::from_secs(600))
///     .any_phase("split-video", split)
///     .attempts(5)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pipeline {
    name: String,
    storage: Option<String>,
    phases: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    name: String,
    work: AnyPhase,
    attempts: u32,
    backoff: Backoff,
    timeout: Option<Duration>,
    concurrency: Option<u32>,
}

impl Pipeline {
    /// A pipeline without phases yet.
    pub fn new(name: impl Into<String>) -> Self {
        Pipeline {
            name: name.into(),
            storage: None,
            phases: Vec::new(),
        }
    }

    /// Adds a phase at the end.
    #[must_use]
    pub fn phase(self, name: impl Into<String>, phase: impl Phase) -> Self {
        self.any_phase(name, AnyPhase::from_async(phase))
    }

    /// Adds a phase that blocks its thread.
    #[must_use]
    pub fn blocking_phase(self, name: impl Into<String>, phase: impl BlockingPhase) -> Self {
        self.any_phase(name, AnyPhase::from_blocking(phase))
    }

    /// Adds a phase of any kind.
    #[must_use]
    pub fn any_phase(mut self, name: impl Into<String>, work: AnyPhase) -> Self {
        self.phases.push(Step {
            name: name.into(),
            work,
            attempts: 3,
            backoff: Backoff::default(),
            timeout: None,
            concurrency: None,
        });
        self
    }

    /// How often the last phase is tried before the job fails. Default 3.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.last(|phase| phase.attempts = attempts)
    }

    /// How long to wait between tries of the last phase: doubling from `first` to
    /// `longest`. Default 1 s to 5 min.
    #[must_use]
    pub fn backoff(self, first: Duration, longest: Duration) -> Self {
        self.last(|phase| phase.backoff = Backoff { first, longest })
    }

    /// How long one attempt of the last phase may run. Default: as long as it likes.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.last(|phase| phase.timeout = Some(timeout))
    }

    /// How many attempts of the last phase one worker runs at once, unless
    /// `--concurrency` says otherwise. Default: the number of processors.
    #[must_use]
    pub fn concurrency(self, slots: u32) -> Self {
        self.last(|phase| phase.concurrency = Some(slots))
    }

    /// Where the journal is, unless `--storage` says otherwise: `memory:`, `sled:PATH`
    /// or `redis://HOST:PORT/DB`.
    #[must_use]
    pub fn storage(mut self, uri: impl Into<String>) -> Self {
        self.storage = Some(uri.into());
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Step)) -> Self {
        if let Some(phase) = self.phases.last_mut() {
            change(phase);
        }
        self
    }

    pub(crate) fn into_entries(self) -> Outcome<(PipelineEntry, Vec<PhaseEntry>)> {
        let fault = |error: &(dyn std::error::Error + 'static)| {
            Failure::from_error(Exit::Definition, error)
                .context(format!("pipeline {:?} is not right", self.name))
        };
        let name = PipelineName::new(&self.name).map_err(|error| fault(&error))?;
        let mut entries = Vec::new();
        for step in &self.phases {
            let mut definition =
                PhaseDefinition::new(JobType::new(&step.name).map_err(|error| fault(&error))?);
            definition.attempts = step.attempts;
            definition.backoff = step.backoff;
            definition.timeout = step.timeout;
            entries.push(PhaseEntry {
                definition,
                concurrency: step.concurrency,
                work: Work::Rust(step.work.clone()),
            });
        }
        let definitions = entries.iter().map(|entry| entry.definition.clone());
        let definition =
            PipelineDefinition::new(name, definitions.collect()).map_err(|error| fault(&error))?;
        let entry = PipelineEntry {
            definition,
            storage: self.storage.clone(),
        };
        Ok((entry, entries))
    }
}
