//! Whether a command can be executed: found out when a worker starts, not with its first job.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::CommandOptions;
use crate::options::StartError;

pub(super) fn check(options: &CommandOptions) -> Result<(), StartError> {
    let Some(program) = options.command.first().filter(|name| !name.is_empty()) else {
        return Err(StartError::CommandEmpty);
    };
    if let Some(dir) = &options.dir {
        let problem = match std::fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => None,
            Ok(_) => Some("it is no folder".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            let dir = dir.clone();
            return Err(StartError::CommandDir { dir, problem });
        }
    }
    if program.contains('/') {
        let path = match &options.dir {
            Some(dir) => dir.join(program),
            None => PathBuf::from(program),
        };
        if !path.exists() {
            return Err(StartError::CommandNotFound {
                program: path.display().to_string(),
                path: None,
            });
        }
        return executable(&path).map_err(|problem| StartError::CommandNotExecutable {
            path,
            problem: problem.to_owned(),
        });
    }
    let own = || std::env::var("PATH").unwrap_or_default();
    let search = options.env.get("PATH").cloned().unwrap_or_else(own);
    let mut found = None;
    for dir in std::env::split_paths(&search) {
        let path = dir.join(program);
        match executable(&path) {
            Ok(()) => return Ok(()),
            Err(problem) if path.is_file() => found = Some((path, problem)),
            Err(_) => {}
        }
    }
    Err(match found {
        Some((path, problem)) => StartError::CommandNotExecutable {
            path,
            problem: problem.to_owned(),
        },
        None => StartError::CommandNotFound {
            program: program.clone(),
            path: Some(search),
        },
    })
}

fn executable(path: &Path) -> Result<(), &'static str> {
    let Ok(meta) = std::fs::metadata(path) else {
        return Err("it cannot be read");
    };
    if !meta.is_file() {
        return Err("it is no file");
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("it has no execute permission");
    }
    Ok(())
}
