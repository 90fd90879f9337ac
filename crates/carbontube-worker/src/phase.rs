//! What a user writes: phases, their errors, and the form in which the runtime holds them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use carbontube_protocol::message::FailureKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::CommandPhase;
use crate::context::JobContext;

/// A phase of a pipeline, as async code.
///
/// It is given the job's instructions, read into a type of its own, and returns what
/// changes in them: an object is merged (shallowly) over the instructions; `()`,
/// `None` or anything else that serializes to `null` leaves them as they are.
///
/// A phase may run more than once for the same job (at least once is the promise), so
/// its work should be idempotent.
pub trait Phase: Send + Sync + 'static {
    /// The part of the instructions that the phase reads.
    type Instructions: DeserializeOwned + Send;
    /// What it returns.
    type Output: Serialize + Send;

    /// Does the work of one attempt.
    ///
    /// When the attempt is cancelled or takes too long, the future is dropped.
    fn execute(
        &self,
        job: &JobContext,
        instructions: Self::Instructions,
    ) -> impl Future<Output = Result<Self::Output, PhaseError>> + Send;
}

/// A phase that blocks its thread: heavy computation, or synchronous I/O.
///
/// Each slot has a thread of its own. A thread cannot be stopped from outside: look at
/// [`JobContext::is_cancelled`] now and then. An attempt that ignores its timeout is
/// reported as timed out, and its slot stays taken until it returns.
pub trait BlockingPhase: Send + Sync + 'static {
    /// The part of the instructions that the phase reads.
    type Instructions: DeserializeOwned + Send;
    /// What it returns.
    type Output: Serialize + Send;

    /// Does the work of one attempt.
    ///
    /// # Errors
    /// Whatever keeps the phase from doing its work.
    fn execute(
        &self,
        job: &JobContext,
        instructions: Self::Instructions,
    ) -> Result<Self::Output, PhaseError>;
}

/// Why a phase could not do its work.
///
/// Any error converts into it with `?`, and so do texts; what the error says is the
/// message, its causes are kept as details.
/// The attempt is tried again, as the pipeline's definition says, unless the error is
/// [`fatal`](PhaseError::fatal).
pub struct PhaseError {
    message: String,
    detail: String,
    retry: bool,
}

impl PhaseError {
    /// An error after which trying again makes sense.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error = error.into();
        let mut detail = String::new();
        let mut cause = error.source();
        while let Some(inner) = cause {
            detail.push_str("caused by: ");
            detail.push_str(&inner.to_string());
            detail.push('\n');
            cause = inner.source();
        }
        PhaseError {
            message: error.to_string(),
            detail,
            retry: true,
        }
    }

    /// An error that no other attempt would avoid: the job fails at once.
    pub fn fatal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        PhaseError {
            retry: false,
            ..Self::new(error)
        }
    }

    /// The same error with more to say: a traceback, a dump, the output of a tool.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        use fmt::Write;
        let _infallible = writeln!(self.detail, "{detail}");
        self
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether another attempt makes no sense.
    pub fn is_fatal(&self) -> bool {
        !self.retry
    }
}

impl fmt::Debug for PhaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.detail.is_empty() {
            write!(f, "\n{}", self.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for PhaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for PhaseError {
    fn from(error: E) -> Self {
        PhaseError::new(error)
    }
}

/// A phase of any kind, as the runtime holds it: bytes in, bytes out.
#[derive(Clone)]
pub struct AnyPhase(pub(crate) Erased);

#[derive(Clone)]
pub(crate) enum Erased {
    Async(Arc<dyn ErasedPhase>),
    Blocking(Arc<dyn ErasedBlocking>),
    Command(Arc<CommandPhase>),
}

impl AnyPhase {
    /// Erases an async phase.
    pub fn from_async(phase: impl Phase) -> Self {
        AnyPhase(Erased::Async(Arc::new(phase)))
    }

    /// Erases a blocking phase.
    pub fn from_blocking(phase: impl BlockingPhase) -> Self {
        AnyPhase(Erased::Blocking(Arc::new(phase)))
    }
}

impl From<CommandPhase> for AnyPhase {
    fn from(phase: CommandPhase) -> Self {
        phase.into_any()
    }
}

impl fmt::Debug for AnyPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Erased::Async(_) => "AnyPhase(async)",
            Erased::Blocking(_) => "AnyPhase(blocking)",
            Erased::Command(_) => "AnyPhase(command)",
        })
    }
}

/// What an attempt came to: the object to merge, nothing to change, or a failure.
pub(crate) type Ended = Result<Option<Bytes>, Failure>;

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) retry: bool,
    /// Somebody else ended it with SIGTERM, who may be ending the worker, too.
    pub(crate) terminated: bool,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            detail: String::new(),
            retry: true,
            terminated: false,
        }
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(crate) fn fatal(mut self) -> Self {
        self.retry = false;
        self
    }
}

impl From<PhaseError> for Failure {
    fn from(error: PhaseError) -> Self {
        Failure {
            kind: FailureKind::Error,
            message: error.message,
            detail: error.detail,
            retry: error.retry,
            terminated: false,
        }
    }
}

pub(crate) type Executing<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

pub(crate) trait ErasedPhase: Send + Sync {
    fn execute<'a>(&'a self, job: &'a JobContext, instructions: &'a [u8]) -> Executing<'a>;
}

impl<P: Phase> ErasedPhase for P {
    fn execute<'a>(&'a self, job: &'a JobContext, instructions: &'a [u8]) -> Executing<'a> {
        Box::pin(async move {
            let instructions = read(instructions)?;
            let output = Phase::execute(self, job, instructions).await?;
            write(&output)
        })
    }
}

pub(crate) trait ErasedBlocking: Send + Sync {
    fn execute(&self, job: &JobContext, instructions: &[u8]) -> Ended;
}

impl<P: BlockingPhase> ErasedBlocking for P {
    fn execute(&self, job: &JobContext, instructions: &[u8]) -> Ended {
        let instructions = read(instructions)?;
        let output = BlockingPhase::execute(self, job, instructions)?;
        write(&output)
    }
}

fn read<T: DeserializeOwned>(instructions: &[u8]) -> Result<T, Failure> {
    // No other attempt can read them better, so this is final.
    serde_json::from_slice(instructions).map_err(|error| {
        let message = format!("the instructions do not fit this phase: {error}");
        Failure::new(FailureKind::Error, message).fatal()
    })
}

fn write<T: Serialize>(output: &T) -> Ended {
    let bytes = serde_json::to_vec(output).map_err(|error| {
        let message = format!("the phase's output cannot be written as JSON: {error}");
        Failure::new(FailureKind::Output, message)
    })?;
    Ok(match bytes.as_slice() {
        b"null" | b"{}" => None,
        _ => Some(Bytes::from(bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the box")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn phase_error_from_an_error_keeps_its_causes() {
        fn fails() -> Result<(), PhaseError> {
            Err(Outer(std::io::Error::other("it is nailed shut")))?;
            Ok(())
        }
        let failure = Failure::from(fails().expect_err("it fails"));
        assert_eq!(failure.message, "cannot open the box");
        assert_eq!(failure.detail, "caused by: it is nailed shut\n");
        assert!(failure.retry);
    }

    #[test]
    fn phase_error_from_text_and_anyhow_converts() {
        assert_eq!(PhaseError::from("plain").message(), "plain");
        assert_eq!(PhaseError::from(format!("a {}", 1)).message(), "a 1");
        let error = anyhow::anyhow!("root").context("top");
        let failure = Failure::from(PhaseError::from(error));
        assert_eq!(failure.message, "top");
        assert_eq!(failure.detail, "caused by: root\n");
        assert!(!Failure::from(PhaseError::fatal("never")).retry);
    }

    #[test]
    fn instructions_that_do_not_fit_name_the_field_and_are_final() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code, reason = "only its reading is tested")]
        struct Wanted {
            video_path: String,
        }
        let failure = read::<Wanted>(b"{\"video\": 1}").expect_err("the field is missing");
        assert!(failure.message.contains("video_path"), "{failure:?}");
        assert!(!failure.retry);
    }

    #[test]
    fn output_null_and_empty_leave_instructions_unchanged() {
        assert_eq!(write(&()), Ok(None));
        assert_eq!(write(&None::<u8>), Ok(None));
        assert_eq!(write(&serde_json::json!({})), Ok(None));
        let output = write(&serde_json::json!({"a": 1}));
        assert_eq!(output, Ok(Some(Bytes::from_static(b"{\"a\":1}"))));
    }
}
