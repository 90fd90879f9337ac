//! Where the password of a Redis server comes from: its URI, a file, the environment.
//!
//! It is read anew for each connection, so that one that was changed is used, and it is
//! never shown: messages name the file or the variable.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::error::StoreError;
use crate::uri::RedisUri;

/// Holds the password, where a URI names none.
const VARIABLE: &str = "CARBONTUBE_REDIS_PASSWORD";
/// Names a file with the password, where neither a URI nor [`VARIABLE`] has it.
const FILE_VARIABLE: &str = "CARBONTUBE_REDIS_PASSWORD_FILE";
/// No password is longer.
const BYTES_MAX: u64 = 64 * 1024;

/// The password for a server, if there is one.
pub(super) fn password(server: &RedisUri) -> Result<Option<String>, StoreError> {
    find(server, |name| std::env::var_os(name))
}

fn find(
    server: &RedisUri,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, StoreError> {
    if let Some(password) = &server.password {
        return Ok(Some(password.clone()));
    }
    if let Some(file) = &server.password_file {
        return read(server, file).map(Some);
    }
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(password) = set(VARIABLE) {
        let password = password.into_string();
        return password
            .map(Some)
            .map_err(|_| bad(server, format!("{VARIABLE} is not UTF-8")));
    }
    match set(FILE_VARIABLE) {
        Some(file) => read(server, Path::new(&file)).map(Some),
        None => Ok(None),
    }
}

/// The first line of a file.
fn read(server: &RedisUri, file: &Path) -> Result<String, StoreError> {
    use std::io::Read;

    let mut text = String::new();
    fs::File::open(file)
        .and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| StoreError::Io {
            action: format!("read the password file {}", file.display()),
            source,
        })?;
    match text.lines().next() {
        None | Some("") => {
            let reason = format!(
                "the first line of the password file {} is empty",
                file.display()
            );
            Err(bad(server, reason))
        }
        Some(line) => Ok(line.to_owned()),
    }
}

fn bad(server: &RedisUri, reason: String) -> StoreError {
    StoreError::BadUri {
        uri: server.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Link;
    use super::*;
    use crate::uri::StoreUri;
    use std::io::{Read, Write};

    fn server(text: &str) -> RedisUri {
        match text.parse() {
            Ok(StoreUri::Redis(server)) => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn password_is_of_the_uri_then_of_its_file_then_of_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (own, other) = (
            file("own", "of the file\nnot this\n"),
            file("other", "of other"),
        );
        let both = |name: &str| match name {
            VARIABLE => Some(OsString::from("of the variable")),
            FILE_VARIABLE => Some(OsString::from(&other)),
            _ => None,
        };
        let only_file = |name: &str| both(name).filter(|_| name == FILE_VARIABLE);
        let found = |uri: &str| find(&server(uri), both).unwrap();
        assert_eq!(found("redis://:of-uri@h").as_deref(), Some("of-uri"));
        let with_file = format!("redis://tina:@h/3?password_file={own}");
        assert_eq!(found(&with_file).as_deref(), Some("of the file"));
        assert_eq!(found("redis://h").as_deref(), Some("of the variable"));
        let last = find(&server("redis://h"), only_file).unwrap();
        assert_eq!(last.as_deref(), Some("of other"));
        assert_eq!(find(&server("redis://h"), |_| None).unwrap(), None);
    }

    #[test]
    fn password_file_that_is_of_no_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let uri = format!("redis://h?password_file={}", path.display());
        let fails = || find(&server(&uri), |_| None).unwrap_err().to_string();
        assert!(fails().contains("read the password file"), "{}", fails());
        fs::write(&path, "\nsecret\n").unwrap();
        assert!(fails().contains("is empty"), "{}", fails());
        assert!(!fails().contains("secret"), "{}", fails());
    }

    #[test]
    fn password_of_a_file_is_sent_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "opensesame\n").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // As a server that knows another password.
        let heard = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).unwrap();
            stream
                .write_all(b"-WRONGPASS invalid username-password pair\r\n")
                .unwrap();
            String::from_utf8_lossy(&bytes[..read]).into_owned()
        });
        let uri = format!(
            "redis://tina:@127.0.0.1:{port}?password_file={}",
            path.display()
        );
        let server = server(&uri);
        let Err(error) = Link::connect(&server, &server.to_string()) else {
            panic!("the password is wrong");
        };
        let heard = heard.join().unwrap();
        assert!(
            heard.contains("tina") && heard.contains("opensesame"),
            "{heard}"
        );
        let shown = format!("{error} {error:?} {server} {server:?}");
        assert!(!shown.contains("opensesame"), "{shown}");
    }
}
