//! Bounded names: pipelines and job types.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name in bytes (protocol.md §8).
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text was empty.
    #[error("a {what} may not be empty")]
    Empty {
        /// Which kind of name was being read.
        what: &'static str,
    },
    /// The text was too long.
    #[error("a {what} has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Which kind of name was being read.
        what: &'static str,
        /// How long the text was.
        bytes: usize,
    },
    /// The text holds a character that names may not have.
    #[error(
        "a {what} is made of ASCII letters, digits, `-`, `_` and `.`, and starts with a letter or a digit; {name:?} has {character:?}"
    )]
    Character {
        /// Which kind of name was being read.
        what: &'static str,
        /// The text.
        name: String,
        /// The first character that is not allowed there.
        character: char,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong {
            what,
            bytes: text.len(),
        });
    }
    for (index, character) in text.chars().enumerate() {
        let inner = matches!(character, '-' | '_' | '.') && index > 0;
        if !character.is_ascii_alphanumeric() && !inner {
            return Err(NameError::Character {
                what,
                name: text.to_owned(),
                character,
            });
        }
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// [`NameError`] when the text is empty, longer than 128 bytes, or has a
            /// character other than ASCII letters, digits, `-`, `_` and `.`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok($name(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a pipeline: what clients enqueue to.
    PipelineName,
    "pipeline name"
);
name!(
    /// The name of a phase: the one thing that its workers do.
    JobType,
    "job type"
);
