//! What a pipeline is: its phases in order, and how each is retried.

use std::time::Duration;

use carbontube_protocol::{JobType, PipelineName};

/// A pipeline: a named, ordered list of phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineDefinition {
    name: PipelineName,
    phases: Vec<PhaseDefinition>,
}

/// One phase as the manager knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhaseDefinition {
    /// The phase's name.
    pub job_type: JobType,
    /// How often the phase is tried before the job fails, 1 or more. Default 3.
    pub attempts: u32,
    /// How long to wait between tries.
    pub backoff: Backoff,
    /// How long one attempt may run; `None` for as long as it likes.
    pub timeout: Option<Duration>,
}

impl PhaseDefinition {
    /// A phase with the defaults: three attempts, backoff from 1 s to 5 min, no timeout.
    pub fn new(job_type: JobType) -> Self {
        PhaseDefinition {
            job_type,
            attempts: 3,
            backoff: Backoff::default(),
            timeout: None,
        }
    }
}

/// Exponential backoff: the n-th retry waits `first * 2^(n-1)`, at most `longest`, with
/// jitter of up to a quarter either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the first retry. Default 1 s.
    pub first: Duration,
    /// The longest wait. Default 5 min.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(300),
        }
    }
}

/// Why phases do not make a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// There are none.
    #[error("pipeline {0} has no phases")]
    NoPhases(PipelineName),
    /// There are too many.
    #[error("pipeline {pipeline} has {found} phases, 1000 is the most")]
    TooManyPhases {
        /// The pipeline.
        pipeline: PipelineName,
        /// How many.
        found: usize,
    },
    /// A phase stands twice: a result could not be told from one of the other place.
    #[error("pipeline {pipeline} has phase {job_type} twice; a phase stands once in a pipeline")]
    Twice {
        /// The pipeline.
        pipeline: PipelineName,
        /// The phase.
        job_type: JobType,
    },
    /// A phase that may never be tried.
    #[error("phase {0} has attempts = 0; 1 is the least")]
    NoAttempts(JobType),
}

impl PipelineDefinition {
    /// Checks and keeps a pipeline.
    ///
    /// # Errors
    /// [`DefinitionError`] when there are no phases or over 1,000, one stands twice, or
    /// one has no attempts.
    pub fn new(name: PipelineName, phases: Vec<PhaseDefinition>) -> Result<Self, DefinitionError> {
        if phases.is_empty() {
            return Err(DefinitionError::NoPhases(name));
        }
        if phases.len() > 1000 {
            return Err(DefinitionError::TooManyPhases {
                pipeline: name,
                found: phases.len(),
            });
        }
        for (index, phase) in phases.iter().enumerate() {
            if phase.attempts == 0 {
                return Err(DefinitionError::NoAttempts(phase.job_type.clone()));
            }
            if phases[..index]
                .iter()
                .any(|other| other.job_type == phase.job_type)
            {
                return Err(DefinitionError::Twice {
                    pipeline: name,
                    job_type: phase.job_type.clone(),
                });
            }
        }
        Ok(PipelineDefinition { name, phases })
    }

    /// The pipeline's name.
    pub fn name(&self) -> &PipelineName {
        &self.name
    }

    /// The phases in order; never empty.
    pub fn phases(&self) -> &[PhaseDefinition] {
        &self.phases
    }
}
