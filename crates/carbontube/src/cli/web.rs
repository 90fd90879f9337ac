//! `web`: the web interface, alone or beside a bundle.

use std::path::Path;
use std::time::Duration;

use carbontube_protocol::Address;
use carbontube_web::{StartError, Web, WebOptions};
use serde_json::json;

use super::arguments::WebArguments;
use super::say::say;
use super::signals::on_signals;
use super::{Style, block_on, write_ready_file};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// A page that is told of every change at once would be all that this does.
const PACE_MIN: Duration = Duration::from_millis(10);

/// Reads the token, if there is a file for it.
pub(crate) fn token(path: Option<&str>) -> Outcome<Option<String>> {
    let read = |path: &str| carbontube_web::read_token(Path::new(path));
    path.map(read).transpose().map_err(|error| {
        Failure::from_error(Exit::Usage, &error)
            .hint("head -c 24 /dev/urandom | base64 > FILE makes a token")
    })
}

/// Starts the web interface and says where it is.
pub(crate) async fn start(options: WebOptions) -> Outcome<Web> {
    let web = Web::start(options).await.map_err(|error| {
        let exit = match error {
            StartError::Listen { .. } => Exit::Failure,
            _ => Exit::Usage,
        };
        Failure::from_error(exit, &error).maybe_hint(error.hint())
    })?;
    let style = Style::stderr();
    say(format_args!("{} {}", style.strong("web"), web.url()));
    if let Some(warning) = web.warning() {
        say(format_args!("{} {warning}", style.odd("warning:")));
    }
    Ok(web)
}

pub(crate) fn web(arguments: WebArguments) -> Outcome<Exit> {
    let usual = WebOptions::default();
    let options = WebOptions {
        host: arguments.host,
        port: arguments.port,
        api: match arguments.api_connect {
            none if none.is_empty() => vec![Address::tcp("127.0.0.1", 5051)],
            some => some,
        },
        subscribe: arguments.sub_connect,
        read_only: arguments.read_only,
        token: token(arguments.token_file.as_deref())?,
        allowed_hosts: arguments.allow_host,
        pace: arguments.pace.unwrap_or(usual.pace).max(PACE_MIN),
        ..usual
    };
    block_on(async {
        let web = start(options).await?;
        let (first, second) = (web.handle(), web.handle());
        on_signals(
            "pages are closed",
            move || first.stop(),
            move || second.stop(),
        )?;
        if let Some(path) = &arguments.ready_file {
            write_ready_file(path, &json!({ "url": web.url() }))?;
        }
        web.run().await;
        Ok(Exit::Success)
    })
}
