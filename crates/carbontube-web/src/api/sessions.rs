//! The token for a session, and the end of one.

use async_io::Timer;
use serde::Deserialize;
use serde_json::json;

use super::App;
use crate::access::COOKIE;
use crate::request::{Problem, Request, Response};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

pub(super) async fn login(app: &App, request: &Request) -> Result<Response, Problem> {
    let login: Login = serde_json::from_slice(&request.body)
        .map_err(|error| Problem::bad(format!("the body is not {{\"token\": …}}: {error}")))?;
    if !app.access.needs_token() {
        return Ok(Response::json(
            &json!({ "done": "no token is needed here" }),
        ));
    }
    if !app.access.is_token(&login.token) {
        Timer::after(app.access.brake.wrong(request.host())).await;
        return Err(Problem::new(401, "token", "that is not the token"));
    }
    let secret = app.access.sessions.open();
    let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Strict");
    Ok(Response::json(&json!({ "done": "the session is open" })).header("set-cookie", cookie))
}

pub(super) fn logout(app: &App, request: &Request) -> Response {
    if let Some(secret) = request.cookie(COOKIE) {
        app.access.sessions.close(secret);
    }
    let cookie = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    Response::json(&json!({ "done": "the session is closed" })).header("set-cookie", cookie)
}
