//! Who may ask what: no foreign site through a visitor's browser, nobody without the
//! token where there is one, no change where it is read only.

use std::net::IpAddr;
use std::time::Duration;

use crate::brake::Brake;
use crate::options::WebOptions;
use crate::request::{Problem, Request};
use crate::sessions::{Lease, Sessions, same};

/// The cookie of a session.
pub(crate) const COOKIE: &str = "carbontube_session";

/// The rules.
#[derive(Debug)]
pub(crate) struct Access {
    hosts: Vec<String>,
    token: Option<String>,
    read_only: bool,
    pub(crate) sessions: Sessions,
    pub(crate) brake: Brake,
}

impl Access {
    pub(crate) fn new(options: &WebOptions) -> Self {
        let mut hosts: Vec<String> = vec!["localhost".to_owned()];
        hosts.push(options.host.to_lowercase());
        let own = rustix::system::uname();
        if let Ok(own) = own.nodename().to_str() {
            hosts.push(own.to_lowercase());
        }
        hosts.extend(options.allowed_hosts.iter().map(|host| host.to_lowercase()));
        Access {
            hosts,
            token: options.token.clone(),
            read_only: options.read_only,
            sessions: Sessions::default(),
            brake: Brake::default(),
        }
    }

    /// Refuses names that are not ours: a foreign page whose name was pointed here would
    /// be of the same origin as ours for a browser.
    pub(crate) fn check_host(&self, request: &Request) -> Result<(), Problem> {
        let host = request.header("host").unwrap_or("");
        let name = without_port(host).to_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        // A name can be pointed anywhere by its owner, an IP address cannot.
        if bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&name) {
            return Ok(());
        }
        let message = format!(
            "this is not {name:?}: start the web interface with --allow-host to be reached by that name"
        );
        Err(Problem::new(421, "host", message))
    }

    /// Refuses what a foreign page makes a visitor's browser send.
    pub(crate) fn check_site(&self, request: &Request) -> Result<(), Problem> {
        let site = request.header("sec-fetch-site");
        if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return Err(Problem::new(403, "origin", "another site may not ask this"));
        }
        if let Some(origin) = request.header("origin") {
            let host = request.header("host").unwrap_or("");
            let ours = origin.split_once("://").map(|(_, rest)| rest);
            if ours.is_none_or(|ours| !ours.eq_ignore_ascii_case(host)) {
                let message = format!("a page of {origin} may not ask this");
                return Err(Problem::new(403, "origin", message));
            }
        }
        // A browser sends a header of its own making only to its own site.
        if request.changes() && request.header("x-carbontube").is_none() {
            let message = "a change needs the header X-Carbontube: 1";
            return Err(Problem::new(403, "header", message));
        }
        Ok(())
    }

    /// Whether a token is needed at all.
    pub(crate) fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    pub(crate) fn is_token(&self, given: &str) -> bool {
        self.token.as_ref().is_some_and(|token| same(token, given))
    }

    /// Refuses who shows neither the token nor a session.
    pub(crate) fn check_token(&self, request: &Request) -> Result<(), Problem> {
        if !self.needs_token() || self.shows_token(request) || self.session(request).is_some() {
            return Ok(());
        }
        let message = "a token is needed: Authorization: Bearer TOKEN, or POST /api/v1/session";
        Err(Problem::new(401, "token", message))
    }

    /// The session that what is asked for must not outlive: there is none where no token is
    /// needed, or where the token itself is shown.
    pub(crate) fn lease(&self, request: &Request) -> Option<Lease> {
        match self.needs_token() && !self.shows_token(request) {
            true => self.session(request),
            false => None,
        }
    }

    fn session(&self, request: &Request) -> Option<Lease> {
        self.sessions.lease(request.cookie(COOKIE)?)
    }

    fn shows_token(&self, request: &Request) -> bool {
        shown_token(request).is_some_and(|token| self.is_token(token))
    }

    /// How long the refusal of a request has to wait: it showed a wrong token.
    pub(crate) fn brake(&self, request: &Request) -> Option<Duration> {
        shown_token(request)?;
        Some(self.brake.wrong(request.host()))
    }

    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn check_change(&self) -> Result<(), Problem> {
        if self.read_only {
            let message = "this web interface was started with --read-only";
            return Err(Problem::new(403, "read_only", message));
        }
        Ok(())
    }
}

/// The token that a program shows.
fn shown_token(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// A host without its port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allowed: &[&str], token: Option<&str>) -> Access {
        Access::new(&WebOptions {
            allowed_hosts: allowed.iter().map(ToString::to_string).collect(),
            token: token.map(str::to_owned),
            ..WebOptions::default()
        })
    }

    fn request(method: &str, headers: &[(&'static str, &str)]) -> Request {
        Request {
            method: method.to_owned(),
            headers: headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn foreign_names_are_refused_and_addresses_are_not() {
        let access = access(&["Jobs.example.org"], None);
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "[::1]",
            "10.0.0.7",
            "jobs.example.org:80",
        ] {
            assert_eq!(
                access.check_host(&request("GET", &[("host", host)])),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:5000",
            "127.0.0.1.evil.example",
            "a:b:1",
        ] {
            let refused = access.check_host(&request("GET", &[("host", host)]));
            assert_eq!(
                refused.map_err(|problem| problem.code),
                Err("host"),
                "{host}"
            );
        }
    }

    #[test]
    fn other_sites_are_refused() {
        let access = access(&[], None);
        let check = |method, headers: &[(&'static str, &str)]| {
            let outcome = access.check_site(&request(method, headers));
            outcome.map_err(|problem| problem.code)
        };
        let host = ("host", "localhost:5000");
        assert_eq!(check("GET", &[host]), Ok(()));
        assert_eq!(check("POST", &[host, ("x-carbontube", "1")]), Ok(()));
        let ours = [
            host,
            ("x-carbontube", "1"),
            ("origin", "http://localhost:5000"),
        ];
        assert_eq!(check("POST", &ours), Ok(()));
        assert_eq!(check("POST", &[host]), Err("header"));
        assert_eq!(
            check("DELETE", &[host, ("sec-fetch-site", "same-origin")]),
            Err("header")
        );
        assert_eq!(
            check("GET", &[host, ("sec-fetch-site", "cross-site")]),
            Err("origin")
        );
        assert_eq!(
            check("GET", &[host, ("sec-fetch-site", "same-site")]),
            Err("origin")
        );
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost:5001",
            "http://localhost:5000.evil.example",
        ] {
            let foreign = [host, ("x-carbontube", "1"), ("origin", origin)];
            assert_eq!(check("POST", &foreign), Err("origin"), "{origin}");
        }
    }

    #[test]
    fn token_or_session_is_needed_where_there_is_a_token() {
        let access = access(&[], Some("0123456789abcdef"));
        let check =
            |headers: &[(&'static str, &str)]| access.check_token(&request("GET", headers)).is_ok();
        assert!(!check(&[]));
        assert!(check(&[("authorization", "Bearer 0123456789abcdef")]));
        assert!(check(&[("authorization", "bearer  0123456789abcdef")]));
        for wrong in [
            "Bearer 0123456789abcde",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!check(&[("authorization", wrong)]), "{wrong}");
        }
        let secret = access.sessions.open();
        let cookie = format!("other=1; {COOKIE}={secret}");
        assert!(check(&[("cookie", &cookie)]));
        assert!(!check(&[("cookie", &format!("{COOKIE}=x"))]));
    }
}
