//! What people write, read as the command line reads it; opened for fuzzing.
//!
//! Behind the feature `testing`, which nothing that is released enables.

use std::path::Path;
use std::time::Duration;

use carbontube_manager::PipelineDefinition;

use crate::duration;
use crate::file::PipelineFile;

/// Reads a duration of a pipeline file.
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse_duration(text)
}

/// Reads a duration of the command line, where a bare number is seconds.
///
/// # Errors
/// What was expected.
pub fn parse_option_duration(text: &str) -> Result<Duration, String> {
    duration::parse_option_duration(text)
}

/// Shows a duration to a person.
pub fn format_duration(duration: Duration) -> String {
    duration::format_duration(duration)
}

/// What a pipeline file says, as far as its phases run commands.
#[derive(Debug)]
pub struct FileContents {
    /// The pipelines, each with its storage where one is named.
    pub pipelines: Vec<(PipelineDefinition, Option<String>)>,
    /// The phases: their commands, variables and concurrency.
    pub phases: Vec<FilePhase>,
}

/// One phase of a pipeline file.
#[derive(Debug)]
pub struct FilePhase {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables for its environment.
    pub env: Vec<(String, String)>,
    /// How many attempts run at once.
    pub concurrency: Option<u32>,
    /// How often it is tried.
    pub attempts: u32,
    /// How long an attempt may run.
    pub timeout: Option<Duration>,
}

/// Reads a pipeline file's text.
///
/// # Errors
/// What a person is told, with the place in the file.
pub fn read_pipeline_file(text: &str) -> Result<FileContents, String> {
    let file = PipelineFile::parse("fuzz.toml", text, Path::new("/"))
        .map_err(|error| error.to_string())?;
    let pipelines = file.pipelines.into_iter();
    let phases = file.phases.into_iter().map(|phase| FilePhase {
        command: phase.command,
        env: phase.env,
        concurrency: phase.concurrency,
        attempts: phase.definition.attempts,
        timeout: phase.definition.timeout,
    });
    Ok(FileContents {
        pipelines: pipelines
            .map(|pipeline| (pipeline.definition, pipeline.storage))
            .collect(),
        phases: phases.collect(),
    })
}
