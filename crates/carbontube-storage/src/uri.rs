//! Storage URIs: `memory:`, `sled:PATH`,
//! `redis://[USER:PASSWORD@]HOST[:PORT][/DB][?password_file=PATH]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::StoreError;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUri {
    /// In the memory of this process.
    Memory,
    /// In a folder of its own.
    Sled(PathBuf),
    /// In a Redis server.
    Redis(RedisUri),
}

/// A Redis server, the database in it and who to be there.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUri {
    /// Host name or address, an IPv6 one without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Number of the database.
    pub db: u32,
    /// User name, where the server knows users.
    pub user: Option<String>,
    /// Password. Never shown.
    pub password: Option<String>,
    /// A file whose first line is the password; read when the server is connected to.
    pub password_file: Option<PathBuf>,
}

impl fmt::Debug for RedisUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUri({self})")
    }
}

impl fmt::Display for RedisUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        write!(f, ":{}/{}", self.port, self.db)
    }
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUri::Memory => f.write_str("memory:"),
            StoreUri::Sled(path) => write!(f, "sled:{}", path.display()),
            StoreUri::Redis(redis) => redis.fmt(f),
        }
    }
}

impl FromStr for StoreUri {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<StoreUri, StoreError> {
        parse(text).map_err(|reason| StoreError::BadUri {
            uri: without_password(text),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<StoreUri, String> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(match text {
            "" => "it is empty".to_owned(),
            "memory" | "sled" | "redis" => format!("a colon is missing after {text:?}"),
            _ => "it has no scheme; a folder is written sled:PATH".to_owned(),
        });
    };
    match scheme {
        "memory" => match rest {
            "" => Ok(StoreUri::Memory),
            _ => Err(format!(
                "memory: takes nothing after the colon, found {rest:?}"
            )),
        },
        "sled" => {
            // Both spellings are met in the wild; `sled:///x` is the absolute path.
            let path = rest.strip_prefix("//").unwrap_or(rest);
            match path {
                "" => Err("the path after sled: is missing".to_owned()),
                _ if path.contains('\0') => Err("the path holds a zero byte".to_owned()),
                _ => Ok(StoreUri::Sled(PathBuf::from(path))),
            }
        }
        "redis" => match rest.strip_prefix("//") {
            Some(rest) => parse_redis(rest).map(StoreUri::Redis),
            None => Err("two slashes are missing after redis:".to_owned()),
        },
        "rediss" => Err("TLS to Redis is not supported; use a tunnel".to_owned()),
        _ => Err(format!("unknown scheme {scheme:?}")),
    }
}

fn parse_redis(rest: &str) -> Result<RedisUri, String> {
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => (Some(login), rest),
        None => (None, rest),
    };
    let (user, password) = match login {
        None => (None, None),
        Some(login) => {
            let (user, password) = login
                .split_once(':')
                .ok_or("before the @ comes USER:PASSWORD or :PASSWORD")?;
            let decoded = |part: &str| (!part.is_empty()).then(|| percent_decode(part)).transpose();
            (decoded(user)?, decoded(password)?)
        }
    };
    let (rest, password_file) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(password_file(query)?)),
        None => (rest, None),
    };
    if password.is_some() && password_file.is_some() {
        return Err("the password stands before the @ and in a file".to_owned());
    }
    let (server, db) = match rest.split_once('/') {
        Some((server, "")) => (server, 0),
        Some((server, db)) => (
            server,
            db.parse()
                .map_err(|_| format!("the database is a number, found {db:?}"))?,
        ),
        None => (rest, 0),
    };
    let (host, port) =
        if let Some(bracketed) = server.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or("the ] after the address is missing")?;
            match after {
                "" => (host, None),
                _ => (
                    host,
                    Some(after.strip_prefix(':').ok_or_else(|| {
                        format!("after the address comes :PORT, found {after:?}")
                    })?),
                ),
            }
        } else {
            match server.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("an IPv6 address is written in [ ]".to_owned());
                }
                Some((host, port)) => (host, Some(port)),
                None => (server, None),
            }
        };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
    if let Some(bad) = host.chars().find(|c| !allowed(*c)) {
        return Err(format!("a host name cannot have {bad:?}"));
    }
    let port = match port {
        None => 6379,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => {
                return Err(format!(
                    "the port is a number from 1 to 65535, found {port:?}"
                ));
            }
            Ok(port) => port,
        },
    };
    Ok(RedisUri {
        host: host.to_owned(),
        port,
        db,
        user,
        password,
        password_file,
    })
}

/// The file in `password_file=PATH`.
fn password_file(query: &str) -> Result<PathBuf, String> {
    match query.strip_prefix("password_file=") {
        Some("") => Err("the path after password_file= is missing".to_owned()),
        Some(path) => percent_decode(path).map(PathBuf::from),
        None => Err("after the ? comes password_file=PATH".to_owned()),
    }
}

fn percent_decode(text: &str) -> Result<String, String> {
    let wrong = || "a % in user, password or path is written %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| "user, password and path are UTF-8".to_owned())
}

fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("//") else {
        return text.to_owned();
    };
    let (login, server) = match rest.rsplit_once('@') {
        Some((login, server)) => (Some(login), server),
        None => (None, rest),
    };
    // A query that we do not know may be a password as well.
    let server = match server.split_once('?') {
        Some((server, query)) if !query.starts_with("password_file=") => format!("{server}?***"),
        _ => server.to_owned(),
    };
    match login {
        None => format!("{scheme}//{server}"),
        Some(login) => {
            let user = login.split_once(':').map_or("", |(user, _)| user);
            format!("{scheme}//{user}:***@{server}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(text: &str) -> RedisUri {
        match text.parse() {
            Ok(StoreUri::Redis(redis)) => redis,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn uri_of_each_kind_is_understood() {
        assert_eq!("memory:".parse::<StoreUri>().unwrap(), StoreUri::Memory);
        for (text, path) in [
            ("sled:./journal", "./journal"),
            ("sled:/var/lib/x y", "/var/lib/x y"),
            ("sled:///var/lib/x", "/var/lib/x"),
            ("sled:a:b", "a:b"),
        ] {
            assert_eq!(
                text.parse::<StoreUri>().unwrap(),
                StoreUri::Sled(PathBuf::from(path))
            );
        }
        let plain = redis("redis://localhost");
        assert_eq!((plain.port, plain.db, plain.user), (6379, 0, None));
        let full = redis("redis://tina:s%40:cret@[::1]:7000/3");
        assert_eq!(full.host, "::1");
        assert_eq!((full.port, full.db), (7000, 3));
        assert_eq!(full.user.as_deref(), Some("tina"));
        assert_eq!(full.password.as_deref(), Some("s@:cret"));
        assert_eq!(redis("redis://:pw@h").password.as_deref(), Some("pw"));
        let of_file = redis("redis://tina:@h/3?password_file=/run/a%40b");
        assert_eq!((of_file.user.as_deref(), of_file.db), (Some("tina"), 3));
        assert_eq!(of_file.password, None);
        assert_eq!(of_file.password_file, Some(PathBuf::from("/run/a@b")));
        let of_file = redis("redis://h?password_file=p");
        assert_eq!(of_file.password_file, Some(PathBuf::from("p")));
        assert_eq!(redis("redis://:p?w@h").password.as_deref(), Some("p?w"));
    }

    #[test]
    fn uri_that_is_wrong_says_what_is_wrong() {
        for (text, reason) in [
            ("", "it is empty"),
            ("sled", "a colon is missing"),
            ("./journal", "a folder is written sled:PATH"),
            ("sled:", "the path after sled: is missing"),
            ("memory:x", "takes nothing after the colon"),
            ("postgres://x", "unknown scheme \"postgres\""),
            ("redis:localhost", "two slashes are missing"),
            ("rediss://h", "TLS"),
            ("redis://", "the host is missing"),
            ("redis://:pw@0[d", "a host name cannot have '['"),
            ("redis://h\0st", "a host name cannot have '\\0'"),
            ("redis://h:0", "the port is a number"),
            ("redis://h:x", "the port is a number"),
            ("redis://h/x", "the database is a number"),
            ("redis://::1", "[ ]"),
            ("redis://tina@h", "USER:PASSWORD"),
            ("redis://:%zz@h", "%25"),
            ("redis://h?password_file=%zz", "%25"),
            ("redis://h?password_file=", "is missing"),
            ("redis://h?password=x", "password_file=PATH"),
            ("redis://:x@h?password_file=p", "and in a file"),
        ] {
            let error = text.parse::<StoreUri>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn uri_never_shows_its_password() {
        let right = redis("redis://tina:secret@h/1");
        for shown in [format!("{right}"), format!("{right:?}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        for wrong in [
            "redis://tina:secret@h:x",
            "redis://tina:?secret@h:x",
            "redis://tina:secret?@h:x",
            "redis://h?password=secret",
        ] {
            let wrong = wrong.parse::<StoreUri>().unwrap_err();
            assert!(!format!("{wrong} {wrong:?}").contains("secret"), "{wrong}");
        }
    }
}
