//! One connection to the server: the calls we make, and what their failures mean.

use std::time::Duration;

use redis::{Client, Cmd, Connection, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};

use super::password::password;
use super::{Keys, scripts};
use crate::error::{Damage, StoreError};
use crate::page::{Log, PageSeq};
use crate::paged::Batch;
use crate::uri::RedisUri;

const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// Shorter than the patience for an answer, so that the server gives up first.
const DISK_PATIENCE: Duration = Duration::from_secs(4);

/// One connection to the server.
pub(super) struct Link {
    connection: Connection,
    place: String,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.place)
    }
}

/// What the server does before it confirms a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Durability {
    /// `appendonly`, where the server tells.
    pub(super) append_only: Option<bool>,
    /// `appendfsync`, where the server tells.
    pub(super) sync: Option<String>,
    /// `no-appendfsync-on-rewrite`: while the server rewrites its file it syncs nothing.
    pub(super) pauses: bool,
    /// Whether it can be asked to wait for its disk.
    pub(super) can_wait: bool,
    /// `maxmemory-policy` if memory is limited and keys may be thrown away.
    pub(super) evicts: Option<String>,
}

impl Durability {
    /// Whether a change is on disk only after waiting for it.
    pub(super) fn needs_confirmation(&self) -> bool {
        self.can_wait && self.append_only == Some(true) && !self.syncs_always()
    }

    fn syncs_always(&self) -> bool {
        self.sync.as_deref() == Some("always") && !self.pauses
    }

    /// Whether a confirmed job survives less than under what was promised before.
    pub(super) fn is_weaker_than(&self, before: &Durability) -> bool {
        let survives = |durability: &Durability| match durability.append_only {
            Some(true) if durability.can_wait || durability.syncs_always() => 3,
            Some(true) => 2,
            None => 1,
            Some(false) => 0,
        };
        survives(self) < survives(before) || (self.evicts.is_some() && before.evicts.is_none())
    }

    /// What an operator should know.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match (self.append_only, self.sync.as_deref()) {
            (None, _) => warnings.push(
                "Redis does not tell its configuration: whether confirmed jobs survive a power cut is unknown"
                    .to_owned(),
            ),
            (Some(false), _) => warnings.push(
                "Redis keeps no append-only file: confirmed jobs may be lost when it stops; set `appendonly yes` and `appendfsync always`"
                    .to_owned(),
            ),
            (Some(true), _) if self.syncs_always() => {}
            (Some(true), Some("always")) if self.can_wait => warnings.push(
                "Redis does not sync its file while it rewrites it, so each commit waits for it; set `no-appendfsync-on-rewrite no`"
                    .to_owned(),
            ),
            (Some(true), Some("always")) => warnings.push(
                "Redis confirms before its file is synced while it rewrites it: jobs confirmed meanwhile may be lost in a power cut; set `no-appendfsync-on-rewrite no`"
                    .to_owned(),
            ),
            (Some(true), _) if self.can_wait => warnings.push(
                "Redis does not sync its file with each change, so each commit waits up to a second for it; set `appendfsync always`"
                    .to_owned(),
            ),
            (Some(true), sync) => warnings.push(format!(
                "Redis confirms before its file is synced (`appendfsync {}`): confirmed jobs of about the last second may be lost in a power cut; set `appendfsync always`",
                sync.unwrap_or("unknown")
            )),
        }
        if let Some(policy) = &self.evicts {
            warnings.push(format!(
                "Redis may throw journal pages away when its memory is full (`maxmemory-policy {policy}`); set `noeviction`"
            ));
        }
        warnings
    }
}

impl Link {
    pub(super) fn connect(server: &RedisUri, place: &str) -> Result<Link, StoreError> {
        let password = password(server)?;
        let connected = connect(server, password).map_err(|error| failure(place, &error))?;
        Ok(Link {
            connection: connected,
            place: place.to_owned(),
        })
    }

    fn call<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, StoreError> {
        command
            .query(&mut self.connection)
            .map_err(|error| failure(&self.place, &error))
    }

    pub(super) fn exists(&mut self, keys: &[&String]) -> Result<u64, StoreError> {
        self.call(redis::cmd("EXISTS").arg(keys))
    }

    pub(super) fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(redis::cmd("GET").arg(key))
    }

    pub(super) fn fields(&mut self, key: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        self.call(redis::cmd("HKEYS").arg(key))
    }

    pub(super) fn pages(
        &mut self,
        key: &str,
        seqs: &[PageSeq],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key);
        for seq in seqs {
            command.arg(seq.0);
        }
        self.call(&command)
    }

    pub(super) fn memory_usage(&mut self, key: &str) -> Result<u64, StoreError> {
        let bytes: Option<u64> = self.call(redis::cmd("MEMORY").arg("USAGE").arg(key))?;
        Ok(bytes.unwrap_or(0))
    }

    /// Takes the journal and says which epoch this is.
    pub(super) fn claim(
        &mut self,
        keys: &Keys,
        token: &str,
        before: Option<u64>,
        lease: Duration,
    ) -> Result<u64, StoreError> {
        let mut command = script(scripts::CLAIM, &[&keys.owner, &keys.claim]);
        command.arg(token).arg(millis(lease));
        command.arg(before.map(|epoch| epoch.to_string()).unwrap_or_default());
        let (outcome, what): (String, String) = self.call(&command)?;
        match outcome.as_str() {
            "claimed" => what.parse().map_err(|_| self.odd(&what)),
            "locked" => Err(StoreError::Locked {
                place: self.place.clone(),
                holder: holder(&what),
            }),
            "fenced" => Err(self.fenced(&what)),
            other => Err(self.odd(other)),
        }
    }

    pub(super) fn renew(
        &mut self,
        keys: &Keys,
        token: &str,
        lease: Duration,
    ) -> Result<(), StoreError> {
        let mut command = script(scripts::RENEW, &[&keys.owner, &keys.claim]);
        self.call(command.arg(token).arg(millis(lease)))
    }

    pub(super) fn release(&mut self, keys: &Keys, token: &str) -> Result<(), StoreError> {
        let mut command = script(scripts::RELEASE, &[&keys.owner]);
        self.call(command.arg(token))
    }

    pub(super) fn commit(
        &mut self,
        keys: &Keys,
        token: &str,
        epoch: u64,
        lease: Duration,
        before: &[u8],
        batch: &Batch,
    ) -> Result<(), StoreError> {
        let all = [
            &keys.owner,
            &keys.claim,
            &keys.head,
            &keys.journal,
            &keys.history,
        ];
        let mut command = script(scripts::COMMIT, &all);
        command.arg(token).arg(millis(lease)).arg(epoch);
        command.arg(before).arg(batch.head.as_slice());
        command.arg(batch.put.len());
        for (log, seq, frame) in &batch.put {
            command.arg(&tag(*log)).arg(seq.0).arg(frame.as_slice());
        }
        for (log, range) in &batch.remove {
            command.arg(&tag(*log)).arg(range.start).arg(range.end);
        }
        let (outcome, by): (String, String) = self.call(&command)?;
        match outcome.as_str() {
            "stored" => Ok(()),
            "fenced" => Err(self.fenced(&by)),
            "moved" => Err(StoreError::damaged(&self.place)(Damage::Other {
                what: "the server holds another state than the one it confirmed".to_owned(),
            })),
            other => Err(self.odd(other)),
        }
    }

    /// Waits until all changes so far are on the server's disk.
    pub(super) fn wait_for_disk(&mut self) -> Result<(), StoreError> {
        let mut command = redis::cmd("WAITAOF");
        command.arg(1).arg(0).arg(millis(DISK_PATIENCE));
        let (local, _replicas): (u64, u64) = self.call(&command)?;
        if local == 0 {
            return Err(StoreError::Unavailable {
                place: self.place.clone(),
                reason: format!("its disk did not take a change within {DISK_PATIENCE:?}"),
            });
        }
        Ok(())
    }

    /// Asks what the server does before it confirms.
    pub(super) fn durability(&mut self) -> Result<Durability, StoreError> {
        let can_wait: redis::Value = self.call(redis::cmd("COMMAND").arg("INFO").arg("WAITAOF"))?;
        let can_wait = match can_wait {
            redis::Value::Array(known) => !matches!(known.first(), None | Some(redis::Value::Nil)),
            _ => false,
        };
        let append_only = self.setting("appendonly")?;
        let limited = self.setting("maxmemory")?.is_some_and(|bytes| bytes != "0");
        let policy = self.setting("maxmemory-policy")?;
        Ok(Durability {
            append_only: append_only.map(|value| value == "yes"),
            sync: self.setting("appendfsync")?,
            pauses: self.setting("no-appendfsync-on-rewrite")?.as_deref() == Some("yes"),
            can_wait,
            evicts: policy.filter(|policy| limited && policy != "noeviction"),
        })
    }

    /// A setting of the server; `None` where it does not tell, as hosted ones do not.
    fn setting(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        let answer: Result<Vec<String>, redis::RedisError> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(name)
            .query(&mut self.connection);
        match answer {
            Ok(pair) => Ok(pair.into_iter().nth(1)),
            Err(error) if is_trouble(&error) => Err(failure(&self.place, &error)),
            Err(_) => Ok(None),
        }
    }

    fn fenced(&self, by: &str) -> StoreError {
        StoreError::Fenced {
            place: self.place.clone(),
            reason: format!("it was opened by {}", holder(by)),
        }
    }

    fn odd(&self, answer: &str) -> StoreError {
        StoreError::Engine {
            place: self.place.clone(),
            reason: format!("Redis answered {answer:?}"),
        }
    }
}

fn connect(server: &RedisUri, password: Option<String>) -> redis::RedisResult<Connection> {
    let mut settings = RedisConnectionInfo::default()
        .set_db(i64::from(server.db))
        .set_skip_set_lib_name();
    if let Some(user) = &server.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let info = (server.host.as_str(), server.port).into_connection_info()?;
    let client = Client::open(info.set_redis_settings(settings))?;
    let connection = client.get_connection_with_timeout(CONNECT_PATIENCE)?;
    connection.set_read_timeout(Some(ANSWER_PATIENCE))?;
    connection.set_write_timeout(Some(ANSWER_PATIENCE))?;
    Ok(connection)
}

fn script(text: &str, keys: &[&String]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len());
    for key in keys {
        command.arg(key.as_str());
    }
    command
}

fn tag(log: Log) -> [u8; 1] {
    [log.tag()]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A token without the random part, which says nothing to people.
fn holder(token: &str) -> String {
    let name = token.split_once(' ').map_or(token, |(_, name)| name);
    name.to_owned()
}

/// Whether it is the connection or the moment that is at fault, not the call.
fn is_trouble(error: &redis::RedisError) -> bool {
    let waiting = [
        "LOADING",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "READONLY",
    ];
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_timeout()
        || error.kind() == redis::ErrorKind::Parse
        || error.code().is_some_and(|code| waiting.contains(&code))
}

fn failure(place: &str, error: &redis::RedisError) -> StoreError {
    let place = place.to_owned();
    let reason = error.to_string();
    if is_trouble(error) {
        return StoreError::Unavailable { place, reason };
    }
    let no_space = reason.contains("OOM ") || reason.contains("No space left");
    if no_space || error.code() == Some("OOM") {
        return StoreError::Full { place };
    }
    if reason.contains("WRONGTYPE") {
        return StoreError::Foreign {
            place,
            found: "its keys hold something else".to_owned(),
        };
    }
    // Among them: it can't write its own files at the moment.
    if reason.contains("MISCONF") {
        return StoreError::Unavailable { place, reason };
    }
    StoreError::Engine { place, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_says_what_is_promised() {
        let server = |append_only, sync: &str, can_wait| Durability {
            append_only,
            sync: Some(sync.to_owned()),
            pauses: false,
            can_wait,
            evicts: None,
        };
        let pausing = |can_wait| Durability {
            pauses: true,
            ..server(Some(true), "always", can_wait)
        };
        for (durability, waits, warning) in [
            (server(Some(true), "always", true), false, None),
            (server(Some(true), "always", false), false, None),
            (
                server(Some(true), "everysec", true),
                true,
                Some("waits up to a second"),
            ),
            (
                server(Some(true), "everysec", false),
                false,
                Some("appendfsync everysec"),
            ),
            (
                server(Some(false), "everysec", true),
                false,
                Some("no append-only file"),
            ),
            (server(None, "", true), false, Some("does not tell")),
            (pausing(true), true, Some("while it rewrites it")),
            (pausing(false), false, Some("while it rewrites it")),
        ] {
            assert_eq!(durability.needs_confirmation(), waits, "{durability:?}");
            let warnings = durability.warnings();
            match warning {
                None => assert!(warnings.is_empty(), "{warnings:?}"),
                Some(text) => assert!(warnings.concat().contains(text), "{warnings:?}"),
            }
        }
    }
}
