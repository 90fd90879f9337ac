//! Instructions: the JSON object that travels with a job.

use bytes::Bytes;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

use crate::limits::Limits;

/// Why bytes are not instructions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstructionsError {
    /// More bytes than the limit.
    #[error("instructions are limited to {limit} bytes, these have {found}")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        found: usize,
    },
    /// Not JSON.
    #[error("instructions are not valid JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("instructions are a JSON object, such as {{\"key\": \"value\"}}, not {found}")]
    NotObject {
        /// What the JSON value is instead.
        found: &'static str,
    },
}

/// Checks that bytes are a JSON object within the limit.
///
/// # Errors
/// [`InstructionsError`] says which rule they break.
pub fn check_instructions(bytes: &[u8], limits: &Limits) -> Result<(), InstructionsError> {
    if bytes.len() > limits.instructions_bytes_max {
        return Err(InstructionsError::TooLarge {
            limit: limits.instructions_bytes_max,
            found: bytes.len(),
        });
    }
    // Skipping over values does not look into strings, so their encoding is checked here.
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(InstructionsError::NotJson(error.to_string()));
    }
    if let Some(found) = non_object(bytes) {
        // Still tell bad JSON from good JSON of the wrong type.
        return Err(match serde_json::from_slice::<IgnoredAny>(bytes) {
            Ok(_) => InstructionsError::NotObject { found },
            Err(error) => InstructionsError::NotJson(error.to_string()),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer
        .deserialize_map(ObjectCheck)
        .and_then(|()| deserializer.end())
        .map_err(|error| InstructionsError::NotJson(error.to_string()))
}

/// What a JSON text is instead of an object, by its first character; `None` for an
/// object and for no text at all.
pub(crate) fn non_object(bytes: &[u8]) -> Option<&'static str> {
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace())?;
    match first {
        b'{' => None,
        b'[' => Some("an array"),
        b'"' => Some("a string"),
        b't' | b'f' => Some("a boolean"),
        b'n' => Some("null"),
        _ => Some("a number"),
    }
}

struct ObjectCheck;

impl<'de> Visitor<'de> for ObjectCheck {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Merges a phase's output over its instructions, shallowly: a key of the output
/// replaces that key of the instructions.
///
/// # Errors
/// [`InstructionsError`] when either is not a JSON object, or the merged object is
/// over the limit.
pub fn merge_instructions(
    instructions: &[u8],
    output: &[u8],
    limits: &Limits,
) -> Result<Bytes, InstructionsError> {
    let mut merged = parse_object(instructions)?;
    merged.extend(parse_object(output)?);
    let bytes = serde_json::to_vec(&merged)
        .map_err(|error| InstructionsError::NotJson(error.to_string()))?;
    if bytes.len() > limits.instructions_bytes_max {
        return Err(InstructionsError::TooLarge {
            limit: limits.instructions_bytes_max,
            found: bytes.len(),
        });
    }
    Ok(Bytes::from(bytes))
}

fn parse_object(bytes: &[u8]) -> Result<BTreeMap<String, &RawValue>, InstructionsError> {
    if let Some(found) = non_object(bytes) {
        return Err(InstructionsError::NotObject { found });
    }
    serde_json::from_slice(bytes).map_err(|error| InstructionsError::NotJson(error.to_string()))
}
