//! `journal verify`, `export` and `import`.

use std::path::Path;
use std::time::SystemTime;

use carbontube_manager::core::import_page;
use carbontube_protocol::Timestamp;
use carbontube_storage::{self as storage, LogReport, LostPages, OpenMode, OpenOptions, Report};
use serde_json::json;

use super::arguments::{ExportArguments, ImportArguments, VerifyArguments};
use super::{print, print_json};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

fn existing(name: &str) -> OpenOptions {
    OpenOptions {
        mode: OpenMode::Existing,
        ..OpenOptions::new(name)
    }
}

fn failure(error: &storage::StoreError) -> Failure {
    Failure::from_error(Exit::Journal, error).maybe_hint(error.hint())
}

fn report_json(report: &Report) -> serde_json::Value {
    let log =
        |log: &LogReport| json!({ "readable_pages": log.readable(), "lost_pages": log.lost() });
    json!({
        "place": report.place,
        "pipeline": report.pipeline,
        "sound": report.is_sound(),
        "commit": report.commit,
        "lost_commits": report.commits_lost,
        "problems": report.problems,
        "journal": log(&report.journal),
        "history": log(&report.history),
    })
}

fn tell(report: &Report, json: bool) -> Outcome<Exit> {
    if json {
        print_json(&report_json(report))?;
    } else {
        print(&format!("{}\n", report.to_string().trim_end()))?;
    }
    Ok(if report.is_sound() {
        Exit::Success
    } else {
        Exit::Journal
    })
}

pub(crate) fn verify(arguments: VerifyArguments) -> Outcome<Exit> {
    let report = storage::examine(&arguments.storage, &existing(&arguments.name))
        .map_err(|error| failure(&error))?;
    tell(&report, arguments.json)
}

pub(crate) fn export(arguments: ExportArguments) -> Outcome<Exit> {
    let report = storage::export(
        &arguments.storage,
        &existing(&arguments.name),
        Path::new(&arguments.output),
    )
    .map_err(|error| failure(&error))?;
    tell(&report, arguments.json)
}

pub(crate) fn import(arguments: ImportArguments) -> Outcome<Exit> {
    let lost = if arguments.accept_loss {
        LostPages::GiveUp
    } else {
        LostPages::Refuse
    };
    let imported = storage::import_with_page(
        Path::new(&arguments.input),
        &arguments.storage,
        &OpenOptions::new(&arguments.name),
        lost,
        &import_page(Timestamp::from_system(SystemTime::now())),
    )
    .map_err(|error| failure(&error))?;
    if arguments.json {
        print_json(&json!({
            "pages": imported.pages,
            "lost_pages": imported.lost,
            "lost_commits": imported.is_older,
        }))?;
    } else {
        let older = match imported.is_older {
            true => "; the last commits that were confirmed may not be among them",
            false => "",
        };
        print(&format!(
            "imported {} pages, {} lost{older}\n",
            imported.pages, imported.lost
        ))?;
    }
    Ok(Exit::Success)
}
