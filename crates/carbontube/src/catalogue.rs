//! The pipelines and phases that a process can serve, from a file or from Rust.

use std::path::Path;

use carbontube_manager::{PhaseDefinition, PipelineDefinition};
use carbontube_worker::{AnyPhase, CommandOptions, CommandPhase};

use crate::Pipeline;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome, suggestion};
use crate::file::PipelineFile;

/// All that can be served.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// Who has it, in messages: the file's name or "this program".
    owner: String,
    pub(crate) pipelines: Vec<PipelineEntry>,
    pub(crate) phases: Vec<PhaseEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct PipelineEntry {
    pub(crate) definition: PipelineDefinition,
    pub(crate) storage: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct PhaseEntry {
    pub(crate) definition: PhaseDefinition,
    pub(crate) concurrency: Option<u32>,
    pub(crate) work: Work,
}

/// What a phase does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Rust(AnyPhase),
    Command(CommandOptions),
}

impl Work {
    pub(crate) fn into_any(self) -> AnyPhase {
        match self {
            Work::Rust(phase) => phase,
            Work::Command(options) => CommandPhase::new(options).into_any(),
        }
    }
}

impl Catalogue {
    pub(crate) fn from_file(path: &str) -> Outcome<Self> {
        let file = PipelineFile::read(Path::new(path)).map_err(|error| {
            Failure::new(Exit::Definition, error.to_string()).maybe_hint(error.hint)
        })?;
        Ok(Catalogue {
            owner: path.to_owned(),
            pipelines: file
                .pipelines
                .into_iter()
                .map(|pipeline| PipelineEntry {
                    definition: pipeline.definition,
                    storage: pipeline.storage,
                })
                .collect(),
            phases: file
                .phases
                .into_iter()
                .map(|phase| PhaseEntry {
                    definition: phase.definition,
                    concurrency: phase.concurrency,
                    work: Work::Command(CommandOptions {
                        command: phase.command,
                        mode: phase.mode,
                        env: phase.env.into_iter().collect(),
                        dir: Some(phase.dir),
                        ..CommandOptions::default()
                    }),
                })
                .collect(),
        })
    }

    pub(crate) fn from_pipelines(pipelines: Vec<Pipeline>) -> Outcome<Self> {
        let mut catalogue = Catalogue {
            owner: "this program".to_owned(),
            pipelines: Vec::new(),
            phases: Vec::new(),
        };
        for pipeline in pipelines {
            let (pipeline, phases) = pipeline.into_entries()?;
            let name = pipeline.definition.name();
            if catalogue
                .pipelines
                .iter()
                .any(|p| p.definition.name() == name)
            {
                let message = format!("this program has pipeline {name} twice");
                return Err(Failure::new(Exit::Definition, message));
            }
            for phase in phases {
                let job_type = &phase.definition.job_type;
                if catalogue
                    .phases
                    .iter()
                    .any(|p| &p.definition.job_type == job_type)
                {
                    return Err(Failure::new(
                        Exit::Definition,
                        format!("this program has phase {job_type} in two pipelines"),
                    )
                    .hint("give one of them another name: a worker asks for its phase by name"));
                }
                catalogue.phases.push(phase);
            }
            catalogue.pipelines.push(pipeline);
        }
        Ok(catalogue)
    }

    pub(crate) fn pipeline(&self, name: &str) -> Outcome<&PipelineEntry> {
        self.pipelines
            .iter()
            .find(|pipeline| pipeline.definition.name().as_str() == name)
            .ok_or_else(|| {
                let known = self.pipelines.iter().map(|p| p.definition.name().as_str());
                self.unknown("pipeline", name, known)
            })
    }

    pub(crate) fn phase(&self, name: &str) -> Outcome<&PhaseEntry> {
        self.phases
            .iter()
            .find(|phase| phase.definition.job_type.as_str() == name)
            .ok_or_else(|| {
                let known = self.phases.iter().map(|p| p.definition.job_type.as_str());
                self.unknown("phase", name, known)
            })
    }

    fn unknown<'a>(
        &self,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Failure {
        Failure::new(
            Exit::Definition,
            format!("{} has no {what} {name:?}", self.owner),
        )
        .hint(suggestion(name, "it", known))
    }
}
