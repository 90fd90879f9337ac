//! The JSON messages of the original Carbontube of 2016 (protocol.md §9): single
//! frames on PULL, two frames on SUB, single frames to its workers.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::address::Address;
use crate::codec::{REASON_BYTES_MAX, cut};
use crate::error::DecodeError;
use crate::ids::JobId;
use crate::instructions::non_object;
use crate::limits::Limits;
use crate::message::ErrorReport;
use crate::names::{JobType, PipelineName};
use crate::time::Timestamp;

/// A single-frame JSON message on PULL.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginalMessage {
    /// A client enqueues a job.
    Enqueue {
        /// The client's id for it.
        id: Option<JobId>,
        /// The pipeline, where the message names one.
        pipeline: Option<PipelineName>,
        /// The instructions, un-nested: a JSON object.
        instructions: Bytes,
    },
    /// A worker finished a job.
    Finished {
        /// The job.
        id: JobId,
        /// The phase.
        job_type: JobType,
        /// Whether it succeeded.
        success: bool,
        /// What went wrong.
        error: ErrorReport,
        /// When it began.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
        /// The merged instructions.
        instructions: Bytes,
    },
}

/// A two-frame event on SUB.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginalEvent {
    /// A worker says that it takes work.
    Available {
        /// The worker's id, as it says it: any text of at most 128 bytes.
        id: String,
        /// Where it takes work.
        address: Address,
        /// The phase that it runs.
        job_type: JobType,
        /// How many jobs succeeded there.
        success_count: u64,
        /// How many failed.
        failed_count: u64,
    },
    /// A worker wrote a log line.
    Log {
        /// The phase.
        job_type: JobType,
        /// The line.
        text: String,
    },
    /// Another of the original's events, which nothing depends on.
    Other {
        /// Its topic.
        topic: String,
    },
}

fn original(reason: impl Into<String>) -> DecodeError {
    DecodeError::Original {
        reason: cut(reason.into(), REASON_BYTES_MAX),
    }
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    pipeline: Option<Value>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    job_type: Option<String>,
    #[serde(default)]
    success: Option<bool>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    job_started_at: Option<f64>,
    #[serde(default)]
    job_finished_at: Option<f64>,
    #[serde(borrow, default)]
    instructions: Option<&'a RawValue>,
}

/// Reads a single-frame message of the original from PULL.
///
/// # Errors
/// [`DecodeError::Original`] says what is missing or wrong, [`DecodeError::Limit`] what
/// is too large.
pub fn decode_message(frame: &[u8], limits: &Limits) -> Result<OriginalMessage, DecodeError> {
    if frame.len() > limits.instructions_bytes_max {
        return Err(DecodeError::Limit {
            what: "a message of the original, in bytes,",
            limit: limits.instructions_bytes_max,
            found: frame.len(),
        });
    }
    if let Some(found) = non_object(frame) {
        return Err(original(format!("it is {found}, not a JSON object")));
    }
    let raw: RawMessage<'_> =
        serde_json::from_slice(frame).map_err(|error| original(error.to_string()))?;
    if raw.job_finished_at.is_some() {
        finished(raw, limits)
    } else {
        enqueue(raw, limits)
    }
}

fn finished(raw: RawMessage<'_>, limits: &Limits) -> Result<OriginalMessage, DecodeError> {
    let id = raw
        .id
        .ok_or_else(|| original("a finished job needs its \"id\""))?;
    let job_type = raw
        .job_type
        .ok_or_else(|| original("a finished job needs its \"job_type\""))?;
    let success = raw
        .success
        .ok_or_else(|| original("a finished job needs \"success\""))?;
    Ok(OriginalMessage::Finished {
        id: JobId::new(&id).map_err(|error| original(error.to_string()))?,
        job_type: JobType::new(&job_type).map_err(|error| original(error.to_string()))?,
        success,
        error: error_report(raw.error.as_ref(), limits),
        started_at: seconds(raw.job_started_at),
        finished_at: seconds(raw.job_finished_at),
        instructions: raw
            .instructions
            .map(|json| Bytes::copy_from_slice(json.get().as_bytes()))
            .unwrap_or_default(),
    })
}

fn enqueue(raw: RawMessage<'_>, limits: &Limits) -> Result<OriginalMessage, DecodeError> {
    #[derive(Deserialize)]
    struct Nested<'a> {
        #[serde(default)]
        name: Option<String>,
        #[serde(borrow, default)]
        instructions: Option<&'a RawValue>,
    }
    let outer = raw
        .instructions
        .ok_or_else(|| original("a job needs \"instructions\""))?;
    // The user's data usually is {"name": PIPELINE, "instructions": {…}}; un-nest that.
    let nested: Option<Nested<'_>> = serde_json::from_str(outer.get()).ok();
    let named = nested.as_ref().and_then(|nested| nested.name.clone());
    let inner = nested
        .and_then(|nested| nested.instructions)
        .filter(|inner| inner.get().starts_with('{'))
        .unwrap_or(outer);
    let instructions = Bytes::copy_from_slice(inner.get().as_bytes());
    crate::check_instructions(&instructions, limits)
        .map_err(|error| original(error.to_string()))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = raw
        .name
        .or_else(|| raw.pipeline.as_ref().and_then(text))
        .or(named);
    Ok(OriginalMessage::Enqueue {
        id: raw
            .id
            .map(|id| JobId::new(&id))
            .transpose()
            .map_err(|error| original(error.to_string()))?,
        pipeline: name
            .map(|name| PipelineName::new(&name))
            .transpose()
            .map_err(|error| original(error.to_string()))?,
        instructions,
    })
}

fn error_report(error: Option<&Value>, limits: &Limits) -> ErrorReport {
    let (message, detail) = match error {
        None | Some(Value::Null) => (String::new(), String::new()),
        Some(Value::String(text)) => (text.clone(), String::new()),
        Some(Value::Object(object)) => {
            let traceback = object
                .get("traceback")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let message = object
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_else(|| traceback.trim_end().rsplit('\n').next().unwrap_or_default());
            (message.to_owned(), traceback.to_owned())
        }
        Some(other) => (other.to_string(), String::new()),
    };
    let mut report = ErrorReport { message, detail };
    report.cut(limits);
    report
}

fn seconds(seconds: Option<f64>) -> Timestamp {
    // A float cast saturates, so a hostile number only gives a far time.
    Timestamp((seconds.unwrap_or(0.0).max(0.0) * 1e6) as u64)
}

/// Reads a two-frame event of the original from SUB.
///
/// # Errors
/// [`DecodeError::Original`] says what is missing or wrong, [`DecodeError::Limit`] what
/// is too large.
pub fn decode_event(
    topic: &[u8],
    frame: &[u8],
    limits: &Limits,
) -> Result<OriginalEvent, DecodeError> {
    #[derive(Deserialize)]
    struct Available {
        id: String,
        address: Address,
        job_type: JobType,
        #[serde(default)]
        success_count: u64,
        #[serde(default)]
        failed_count: u64,
    }
    #[derive(Deserialize)]
    struct Log {
        msg: String,
    }
    if frame.len() > limits.body_bytes_max {
        return Err(DecodeError::Limit {
            what: "an event of the original, in bytes,",
            limit: limits.body_bytes_max,
            found: frame.len(),
        });
    }
    let topic = std::str::from_utf8(topic).map_err(|_| original("its topic is not text"))?;
    if topic.len() > 256 {
        return Err(original("its topic is longer than 256 bytes"));
    }
    if let Some(found) = non_object(frame) {
        return Err(original(format!("it is {found}, not a JSON object")));
    }
    if topic.contains("available") {
        let event: Available =
            serde_json::from_slice(frame).map_err(|error| original(error.to_string()))?;
        if event.id.is_empty() || event.id.len() > 128 {
            return Err(original("a worker's \"id\" has 1 to 128 bytes"));
        }
        return Ok(OriginalEvent::Available {
            id: event.id,
            address: event.address,
            job_type: event.job_type,
            success_count: event.success_count,
            failed_count: event.failed_count,
        });
    }
    if let Some(job_type) = topic.strip_suffix(":logs") {
        let log: Log =
            serde_json::from_slice(frame).map_err(|error| original(error.to_string()))?;
        return Ok(OriginalEvent::Log {
            job_type: JobType::new(job_type).map_err(|error| original(error.to_string()))?,
            text: cut(log.msg, limits.log_line_bytes_max),
        });
    }
    Ok(OriginalEvent::Other {
        topic: topic.to_owned(),
    })
}

/// The single frame that hands a job to a worker of the original.
pub fn encode_job(
    id: &JobId,
    job_type: &JobType,
    instructions: &[u8],
    enqueued_at: Timestamp,
    retries: u32,
) -> Bytes {
    let mut object = Map::new();
    object.insert("id".to_owned(), json!(id.to_string()));
    object.insert("job_type".to_owned(), json!(job_type.as_str()));
    object.insert("state".to_owned(), json!("running"));
    object.insert(
        "enqueued_at".to_owned(),
        json!(enqueued_at.as_micros() as f64 / 1e6),
    );
    object.insert("retries".to_owned(), json!(retries));
    object.insert(
        "instructions".to_owned(),
        serde_json::from_slice(instructions).unwrap_or_else(|_| json!({})),
    );
    Bytes::from(Value::Object(object).to_string())
}
