//! What the web interface may be told.

use std::path::Path;
use std::time::Duration;

use carbontube_protocol::{Address, Limits};

use crate::error::TokenError;

/// The fewest characters of a token.
const TOKEN_CHARS_MIN: usize = 16;

/// Where the web interface listens, whom it shows, and what it allows.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// The host or IP address to listen on. Default `127.0.0.1`.
    pub host: String,
    /// The port; 0 for any free one. Default 5000.
    pub port: u16,
    /// The api addresses of the managers, one for each pipeline.
    pub api: Vec<Address>,
    /// Where events come from; empty to ask each manager for its pub address.
    pub subscribe: Vec<Address>,
    /// Refuses every change.
    pub read_only: bool,
    /// What a browser or program must present; `None` to let everybody in.
    pub token: Option<String>,
    /// Names under which browsers may reach this, beside IP addresses, `localhost` and
    /// the host's own name: others are refused, so that no foreign site can point its
    /// name here.
    pub allowed_hosts: Vec<String>,
    /// How often the state of a manager is asked for. Default one second.
    pub refresh: Duration,
    /// The shortest time between two messages to a page. Default 250 ms.
    pub pace: Duration,
    /// Limits on what managers send.
    pub limits: Limits,
}

impl Default for WebOptions {
    fn default() -> Self {
        WebOptions {
            host: "127.0.0.1".to_owned(),
            port: 5000,
            api: Vec::new(),
            subscribe: Vec::new(),
            read_only: false,
            token: None,
            allowed_hosts: Vec::new(),
            refresh: Duration::from_secs(1),
            pace: Duration::from_millis(250),
            limits: Limits::default(),
        }
    }
}

/// Reads a token from a file: its first line, without blanks around it.
///
/// # Errors
/// When the file cannot be read, or the token is too short to be a secret.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let place = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| TokenError::Unreadable {
        place: place.clone(),
        source,
    })?;
    let token = text.lines().next().unwrap_or("").trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.len() < TOKEN_CHARS_MIN || !is_plain {
        return Err(TokenError::Weak {
            place,
            least: TOKEN_CHARS_MIN,
        });
    }
    Ok(token.to_owned())
}
