//! Pipeline files: TOML, read strictly, with errors that point at the place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use carbontube_manager::{Backoff, PhaseDefinition, PipelineDefinition};
use carbontube_protocol::{JobType, PipelineName};
use carbontube_storage::StoreUri;
use carbontube_worker::CommandMode;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::duration::parse_duration;
use crate::failure::{nearest, suggestion};

/// Larger files are no pipeline files.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a file says.
#[derive(Debug)]
pub(crate) struct PipelineFile {
    pub(crate) pipelines: Vec<FilePipeline>,
    pub(crate) phases: Vec<FilePhase>,
}

/// One `[[pipeline]]`.
#[derive(Debug)]
pub(crate) struct FilePipeline {
    pub(crate) definition: PipelineDefinition,
    pub(crate) storage: Option<String>,
}

/// One `[phase.NAME]`.
#[derive(Debug)]
pub(crate) struct FilePhase {
    pub(crate) definition: PhaseDefinition,
    pub(crate) command: Vec<String>,
    pub(crate) mode: CommandMode,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
    pub(crate) concurrency: Option<u32>,
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileError {
    file: String,
    place: Option<(usize, usize)>,
    problem: String,
    pub(crate) hint: Option<String>,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.problem)
            }
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

impl PipelineFile {
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        use std::io::Read;

        let name = path.display().to_string();
        let fault = |problem: String, hint: Option<String>| FileError {
            file: name.clone(),
            place: None,
            problem,
            hint,
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| {
                fault(
                    format!("cannot read the pipeline file: {error}"),
                    Some("give the path of a TOML pipeline file".to_owned()),
                )
            })?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(fault(
                format!("a pipeline file has at most {FILE_BYTES_MAX} bytes"),
                None,
            ));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| fault(format!("the file is not UTF-8 text: {error}"), None))?;
        let path = std::path::absolute(path)
            .map_err(|error| fault(format!("cannot tell its folder: {error}"), None))?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        Self::parse(&name, &text, dir)
    }

    /// Reads a file's text; `dir` is the folder that its paths start from.
    pub(crate) fn parse(name: &str, text: &str, dir: &Path) -> Result<Self, FileError> {
        let reader = Reader { name, text, dir };
        let document = DeTable::parse(text).map_err(|error| {
            let message = error.message().replace('\n', ", ");
            reader.fault(error.span().unwrap_or(0..0), format!("not TOML: {message}"))
        })?;
        reader.document(&document)
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    dir: &'a Path,
}

type Table<'i> = DeTable<'i>;
type Value<'i> = Spanned<DeValue<'i>>;
type Read<T> = Result<T, FileError>;

const ROOT_KEYS: &[&str] = &["pipeline", "phase"];
const PIPELINE_KEYS: &[&str] = &["name", "phases", "storage"];
const PHASE_KEYS: &[&str] = &[
    "command",
    "mode",
    "env",
    "concurrency",
    "timeout",
    "attempts",
    "backoff",
];

impl Reader<'_> {
    fn fault(&self, span: Range<usize>, problem: impl Into<String>) -> FileError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        FileError {
            file: self.name.to_owned(),
            place: Some((line, before[start..].chars().count() + 1)),
            problem: problem.into(),
            hint: None,
        }
    }

    fn document(&self, document: &Spanned<Table<'_>>) -> Read<PipelineFile> {
        let table = document.get_ref();
        self.known_keys(table, "a pipeline file", ROOT_KEYS)?;
        let phases = match table.get("phase") {
            None => Vec::new(),
            Some(value) => self
                .table(value, "phase", "[phase.NAME] tables")?
                .iter()
                .map(|(name, value)| self.phase(name, value))
                .collect::<Read<Vec<_>>>()?,
        };
        let Some(pipelines) = table.get("pipeline") else {
            let mut error = self.fault(0..0, "the file has no [[pipeline]]");
            error.hint = Some(
                "add [[pipeline]] with a name and its phases, such as phases = [\"encode\"]"
                    .to_owned(),
            );
            return Err(error);
        };
        let DeValue::Array(list) = pipelines.get_ref() else {
            let mut error = self.fault(
                pipelines.span(),
                format!(
                    "pipeline is an array of tables, not {}",
                    kind(pipelines.get_ref())
                ),
            );
            error.hint = Some("write [[pipeline]] with two brackets".to_owned());
            return Err(error);
        };
        let mut read: Vec<FilePipeline> = Vec::new();
        for value in list.iter() {
            let pipeline = self.pipeline(value, &phases)?;
            let name = pipeline.definition.name();
            if read.iter().any(|other| other.definition.name() == name) {
                let problem = format!("the file has pipeline {name} twice");
                return Err(self.fault(value.span(), problem));
            }
            read.push(pipeline);
        }
        if read.is_empty() {
            return Err(self.fault(pipelines.span(), "the file has no [[pipeline]]"));
        }
        Ok(PipelineFile {
            pipelines: read,
            phases,
        })
    }

    fn known_keys(&self, table: &Table<'_>, owner: &str, known: &[&str]) -> Read<()> {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let mut error = self.fault(key.span(), format!("unknown key {name:?}"));
                error.hint = Some(suggestion(name, owner, known.iter().copied()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn pipeline(&self, value: &Value<'_>, phases: &[FilePhase]) -> Read<FilePipeline> {
        let table = self.table(value, "pipeline", "a table")?;
        self.known_keys(table, "a pipeline", PIPELINE_KEYS)?;
        let name = self.required(table, value, "a pipeline", "name")?;
        let pipeline = PipelineName::new(self.string(name, "name")?)
            .map_err(|error| self.fault(name.span(), error.to_string()))?;
        let list = self.required(table, value, "a pipeline", "phases")?;
        let mut definitions: Vec<PhaseDefinition> = Vec::new();
        for item in self.array(list, "phases")? {
            let name = self.string(item, "a phase")?;
            let known = phases
                .iter()
                .map(|phase| phase.definition.job_type.as_str());
            let phase = phases
                .iter()
                .find(|phase| phase.definition.job_type.as_str() == name)
                .ok_or_else(|| {
                    let problem = format!("there is no [phase.{name}]");
                    let mut error = self.fault(item.span(), problem);
                    error.hint = Some(suggestion(name, "the file", known));
                    error
                })?;
            definitions.push(phase.definition.clone());
        }
        let definition = PipelineDefinition::new(pipeline, definitions)
            .map_err(|error| self.fault(list.span(), error.to_string()))?;
        let storage = match table.get("storage") {
            None => None,
            Some(value) => {
                let uri = self.string(value, "storage")?;
                let parsed = uri
                    .parse::<StoreUri>()
                    .map_err(|error| self.fault(value.span(), error.to_string()))?;
                Some(match parsed {
                    StoreUri::Sled(path) => {
                        // Through its components, which leaves `.` out.
                        let path: PathBuf = self.dir.join(path).components().collect();
                        format!("sled:{}", path.display())
                    }
                    // The password stands only in the text as it was written.
                    StoreUri::Redis(server) => match &server.password_file {
                        Some(file) => with_password_file(uri, &self.dir.join(file)),
                        None => uri.to_owned(),
                    },
                    StoreUri::Memory => uri.to_owned(),
                })
            }
        };
        Ok(FilePipeline {
            definition,
            storage,
        })
    }

    fn phase(
        &self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Value<'_>,
    ) -> Read<FilePhase> {
        let job_type = JobType::new(name.get_ref())
            .map_err(|error| self.fault(name.span(), error.to_string()))?;
        let table = self.table(value, "phase", "[phase.NAME] tables")?;
        self.known_keys(table, "a phase", PHASE_KEYS)?;
        let list = self.required(table, value, "a phase", "command")?;
        let mut command = Vec::new();
        for item in self.array(list, "command")? {
            command.push(self.string(item, "each part of a command")?.to_owned());
        }
        if command.first().is_none_or(|program| program.is_empty()) {
            return Err(self.fault(list.span(), "the command is empty"));
        }
        let mut definition = PhaseDefinition::new(job_type);
        if let Some(value) = table.get("attempts") {
            definition.attempts = self.number(value, "attempts", 1000)?;
        }
        if let Some(value) = table.get("backoff") {
            definition.backoff = self.backoff(value)?;
        }
        if let Some(value) = table.get("timeout") {
            let timeout = parse_duration(self.string(value, "timeout")?)
                .map_err(|problem| self.fault(value.span(), problem))?;
            if timeout.is_zero() {
                return Err(self.fault(value.span(), "a timeout is longer than 0"));
            }
            definition.timeout = Some(timeout);
        }
        let mode = match table.get("mode") {
            None => CommandMode::Once,
            Some(value) => match self.string(value, "mode")? {
                "once" => CommandMode::Once,
                "stream" => CommandMode::Stream,
                other => {
                    let problem = format!("mode is \"once\" or \"stream\", not {other:?}");
                    let mut error = self.fault(value.span(), problem);
                    error.hint = nearest(other, ["once", "stream"])
                        .map(|name| format!("did you mean `{name}`?"));
                    return Err(error);
                }
            },
        };
        let mut env = Vec::new();
        if let Some(value) = table.get("env") {
            for (key, value) in self.table(value, "env", "a table of texts")? {
                let name = key.get_ref();
                if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("CARBONTUBE_")
                {
                    let problem = format!("{name:?} cannot be set as an environment variable");
                    return Err(self.fault(key.span(), problem));
                }
                env.push((name.to_string(), self.string(value, name)?.to_owned()));
            }
        }
        let concurrency = match table.get("concurrency") {
            None => None,
            Some(value) => Some(self.number(value, "concurrency", 2048)?),
        };
        Ok(FilePhase {
            definition,
            command,
            mode,
            env,
            dir: self.dir.to_owned(),
            concurrency,
        })
    }

    fn backoff(&self, value: &Value<'_>) -> Read<Backoff> {
        let text = self.string(value, "backoff")?;
        let fault = |problem: String| self.fault(value.span(), problem);
        let (first, longest) = match text.split_once("..") {
            Some((first, longest)) => (
                parse_duration(first).map_err(fault)?,
                parse_duration(longest).map_err(fault)?,
            ),
            None => {
                let both = parse_duration(text).map_err(fault)?;
                (both, both)
            }
        };
        if first > longest {
            return Err(fault(format!(
                "backoff {text:?} ends before it begins; write the shorter one first, such as 1s..5m"
            )));
        }
        Ok(Backoff { first, longest })
    }

    fn required<'v, 'i>(
        &self,
        table: &'v Table<'i>,
        owner: &Value<'_>,
        what: &str,
        key: &str,
    ) -> Read<&'v Value<'i>> {
        table.get(key).ok_or_else(|| {
            let mut error = self.fault(owner.span(), format!("{what} needs {key:?}"));
            error.hint = Some(match key {
                "command" => "such as command = [\"python3\", \"encode.py\"]".to_owned(),
                "phases" => "such as phases = [\"encode-video\", \"split-video\"]".to_owned(),
                other => format!("add {other} = \"…\""),
            });
            error
        })
    }

    fn table<'v, 'i>(&self, value: &'v Value<'i>, key: &str, wanted: &str) -> Read<&'v Table<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            other => Err(self.wrong(value, key, wanted, other)),
        }
    }

    fn array<'v, 'i>(
        &self,
        value: &'v Value<'i>,
        key: &str,
    ) -> Read<impl Iterator<Item = &'v Value<'i>>> {
        match value.get_ref() {
            DeValue::Array(array) => Ok(array.iter()),
            other => Err(self.wrong(value, key, "a list of texts", other)),
        }
    }

    fn string<'v>(&self, value: &'v Value<'_>, key: &str) -> Read<&'v str> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            other => Err(self.wrong(value, key, "a text in quotes", other)),
        }
    }

    fn number(&self, value: &Value<'_>, key: &str, most: u32) -> Read<u32> {
        let wanted = format!("a whole number from 1 to {most}");
        match value.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|number| (1..=most).contains(number))
                .ok_or_else(|| {
                    let problem = format!("{key} is {wanted}, not {}", number.as_str());
                    self.fault(value.span(), problem)
                }),
            other => Err(self.wrong(value, key, &wanted, other)),
        }
    }

    fn wrong(&self, value: &Value<'_>, key: &str, wanted: &str, found: &DeValue<'_>) -> FileError {
        self.fault(
            value.span(),
            format!("{key} is {wanted}, not {}", kind(found)),
        )
    }
}

/// The URI with another path to its password file.
fn with_password_file(uri: &str, file: &Path) -> String {
    let before = uri.rsplit_once('?').map_or(uri, |(before, _)| before);
    let mut path = String::new();
    for c in file.display().to_string().chars() {
        match c {
            '%' => path.push_str("%25"),
            '@' => path.push_str("%40"),
            '?' => path.push_str("%3f"),
            c => path.push(c),
        }
    }
    format!("{before}?password_file={path}")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests;
