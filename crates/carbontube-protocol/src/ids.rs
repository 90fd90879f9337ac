//! Ids of jobs, attempts, workers and managers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The longest job id in bytes (protocol.md §8).
pub(crate) const JOB_ID_BYTES_MAX: usize = 128;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text was empty.
    #[error("an id may not be empty")]
    Empty,
    /// The text was too long.
    #[error("a job id has at most {JOB_ID_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// How long the text was.
        bytes: usize,
    },
    /// The text holds a character outside printable ASCII, or a space.
    #[error("a job id is printable ASCII without spaces; {id:?} has {character:?}")]
    Character {
        /// The text.
        id: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// The text is not a UUID.
    #[error("expected a UUID, found {0:?}")]
    NotUuid(String),
    /// The text is not `EPOCH-COUNTER`.
    #[error("expected an attempt id such as 3-1042, found {0:?}")]
    NotAttempt(String),
}

/// The id of a job, unique within its pipeline.
///
/// Either a UUID (version 7 when Carbontube made it) or any text of the client's own.
/// A text that is a canonical UUID (lower case, hyphens) is the same id as that UUID,
/// and needs 16 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Uuid([u8; 16]),
    Text(Box<str>),
}

impl JobId {
    /// Checks and keeps an id.
    ///
    /// # Errors
    /// [`IdError`] when the text is empty, longer than 128 bytes, or has a character
    /// that is a space or not printable ASCII.
    pub fn new(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > JOB_ID_BYTES_MAX {
            return Err(IdError::TooLong { bytes: text.len() });
        }
        if let Some(character) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(IdError::Character {
                id: text.to_owned(),
                character,
            });
        }
        if let Some(uuid) = canonical_uuid(text) {
            return Ok(JobId(Repr::Uuid(uuid)));
        }
        Ok(JobId(Repr::Text(text.into())))
    }

    /// A fresh id: a UUID of version 7 (RFC 9562), which sorts by time of creation.
    pub fn generate() -> Self {
        JobId(Repr::Uuid(Uuid::now_v7().into_bytes()))
    }

    /// An id from the 16 bytes of a UUID.
    pub fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        JobId(Repr::Uuid(bytes))
    }
}

fn canonical_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok().map(Uuid::into_bytes)
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Uuid(bytes) => write!(f, "{}", Uuid::from_bytes(*bytes).hyphenated()),
            Repr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The binary form: a UUID as its bytes, anything else as text.
#[derive(Serialize, Deserialize)]
enum BinaryJobId {
    Uuid([u8; 16]),
    Text(String),
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        match &self.0 {
            Repr::Uuid(bytes) => BinaryJobId::Uuid(*bytes).serialize(serializer),
            Repr::Text(text) => BinaryJobId::Text(text.to_string()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return Self::new(&text).map_err(de::Error::custom);
        }
        match BinaryJobId::deserialize(deserializer)? {
            BinaryJobId::Uuid(bytes) => Ok(JobId(Repr::Uuid(bytes))),
            BinaryJobId::Text(text) => Self::new(&text).map_err(de::Error::custom),
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh random id.
            pub fn generate() -> Self {
                $name(Uuid::new_v4().into_bytes())
            }

            /// An id from its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                $name(bytes)
            }

            /// The id's 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough to tell a person which one.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(|uuid| $name(uuid.into_bytes()))
                    .map_err(|_| IdError::NotUuid(text.chars().take(64).collect()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", Uuid::from_bytes(self.0).hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                self.0.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    return text.parse().map_err(de::Error::custom);
                }
                <[u8; 16]>::deserialize(deserializer).map($name)
            }
        }
    };
}

uuid_id!(
    /// One incarnation of a worker: a restarted worker is a new one.
    WorkerId
);
uuid_id!(
    /// A manager's journal: it stays the same over restarts of the manager.
    ManagerId
);

/// One attempt to run one phase of one job: what a dispatch hands to a worker.
///
/// Unique for one manager, over its restarts: `epoch` grows by one with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The manager's epoch when it dispatched the attempt.
    pub epoch: u64,
    /// Counts the dispatches within the epoch.
    pub counter: u64,
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::NotAttempt(text.chars().take(64).collect());
        let (epoch, counter) = text.split_once('-').ok_or_else(bad)?;
        Ok(AttemptId {
            epoch: epoch.parse().map_err(|_| bad())?,
            counter: counter.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.counter)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for AttemptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.epoch, self.counter).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return text.parse().map_err(de::Error::custom);
        }
        let (epoch, counter) = <(u64, u64)>::deserialize(deserializer)?;
        Ok(AttemptId { epoch, counter })
    }
}
