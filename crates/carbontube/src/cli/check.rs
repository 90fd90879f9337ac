//! `check`: is the file right, and are its programs there?

use carbontube_worker::CommandPhase;
use serde_json::json;

use super::arguments::CheckArguments;
use super::say::say;
use super::{Source, print, print_json};
use crate::catalogue::Work;
use crate::duration::format_duration;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

pub(crate) fn check(arguments: CheckArguments, source: Source) -> Outcome<Exit> {
    let catalogue = source.catalogue(&arguments.file)?;
    for phase in &catalogue.phases {
        if let Work::Command(options) = &phase.work {
            CommandPhase::new(options.clone())
                .check()
                .map_err(|error| {
                    Failure::from_error(Exit::Definition, &error).context(format!(
                        "phase {} cannot run here",
                        phase.definition.job_type
                    ))
                })?;
        }
    }
    let unused = catalogue.phases.iter().filter(|phase| {
        !catalogue.pipelines.iter().any(|p| {
            p.definition
                .phases()
                .iter()
                .any(|used| used.job_type == phase.definition.job_type)
        })
    });
    for phase in unused {
        say(format_args!(
            "note: no pipeline has phase {}",
            phase.definition.job_type
        ));
    }
    if arguments.json {
        let pipelines: Vec<_> = catalogue
            .pipelines
            .iter()
            .map(|pipeline| {
                let phases: Vec<_> = pipeline
                    .definition
                    .phases()
                    .iter()
                    .map(|phase| phase.job_type.as_str())
                    .collect();
                json!({ "name": pipeline.definition.name(), "phases": phases })
            })
            .collect();
        print_json(&json!({ "pipelines": pipelines }))?;
        return Ok(Exit::Success);
    }
    for pipeline in &catalogue.pipelines {
        print(&format!("{}\n", pipeline.definition.name()))?;
        for phase in pipeline.definition.phases() {
            let timeout = phase.timeout.map_or_else(
                || "no timeout".to_owned(),
                |t| format!("timeout {}", format_duration(t)),
            );
            print(&format!(
                "  {}: {} attempts, backoff {}..{}, {timeout}\n",
                phase.job_type,
                phase.attempts,
                format_duration(phase.backoff.first),
                format_duration(phase.backoff.longest),
            ))?;
        }
    }
    Ok(Exit::Success)
}
