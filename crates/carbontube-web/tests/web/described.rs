//! Answers against `openapi.json`: what is described is answered, and nothing else.

use serde_json::{Value, json};

use crate::http::{get, post, until};
use crate::support::{Running, Site, options, run};

/// What of a value does not fit a schema, as `path: why`.
///
/// Stricter than JSON Schema: where properties are named, no other may be there.
fn check(all: &Value, schema: &Value, value: &Value, path: &str, misfits: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().expect("a name");
        let named = &all["components"]["schemas"][name];
        assert!(named.is_object(), "{reference} is not described");
        return check(all, named, value, path, misfits);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let mut best: Option<Vec<String>> = None;
        for choice in choices {
            let mut found = Vec::new();
            check(all, choice, value, path, &mut found);
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        misfits.extend(best.unwrap_or_default());
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        None => true,
        Some(other) => panic!("{path}: a type {other:?} in the description"),
    };
    if !fits {
        misfits.push(format!("{path}: {value} is no {}", schema["type"]));
        return;
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        misfits.push(format!("{path}: {value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if value.get(name).is_none() {
            misfits.push(format!("{path}: there is no {name}"));
        }
    }
    for (name, part) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match schema.get("properties").map(|known| known.get(name)) {
            Some(Some(schema)) => check(all, schema, part, &path, misfits),
            Some(None) => misfits.push(format!("{path} is not described")),
            None => {}
        }
    }
    if let (Some(schema), Some(items)) = (schema.get("items"), value.as_array()) {
        for (index, item) in items.iter().enumerate() {
            check(all, schema, item, &format!("{path}[{index}]"), misfits);
        }
    }
}

fn misfits(all: &Value, method: &str, route: &str, outcome: &str, value: &Value) -> Vec<String> {
    let answer = &all["paths"][route][method]["responses"][outcome];
    let schema = &answer["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {route} has no {outcome}");
    let mut found = Vec::new();
    check(all, schema, value, "", &mut found);
    found
}

#[test]
fn answers_are_as_described() {
    run(async {
        let films = Running::start(options("films", &["cut", "join"])).await;
        let site = Site::over(&[&films]).await;
        films.worker("cut", 1).await;
        films.worker("join", 1).await;
        films
            .enqueue(&[
                ("good", json!({ "log": "a line", "progress": 1 })),
                ("bad", json!({ "fail": "no such film" })),
            ])
            .await;
        // Everything that may be null is something somewhere.
        until(site.port, "/api/v1/overview", |all| {
            let pipeline = &all["pipelines"][0];
            pipeline["success"] == 1 && pipeline["failed"] == 1
        })
        .await;
        until(site.port, "/api/v1/logs", |logs| {
            logs["lines"].as_array().is_some_and(|l| !l.is_empty())
        })
        .await;
        let all = get(site.port, "/api/openapi.json").await.json();
        let whole = "/api/v1/pipelines/{pipeline}";
        let mut asked = Vec::new();
        for route in all["paths"].as_object().expect("paths").keys() {
            let answer = &all["paths"][route]["get"]["responses"]["200"];
            if !answer["content"]["application/json"].is_object() {
                continue;
            }
            for job in ["good", "bad", "unknown"] {
                let path = route.replace("{pipeline}", "films").replace("{job}", job);
                if job != "good" && path == *route.replace("{pipeline}", "films") {
                    continue;
                }
                let answer = get(site.port, &path).await;
                let outcome = match answer.status {
                    200 => "200",
                    _ => "default",
                };
                let found = misfits(&all, "get", route, outcome, &answer.json());
                assert_eq!(found, Vec::<String>::new(), "GET {path}");
                asked.push(path);
            }
        }
        assert!(asked.len() > 15, "{asked:?}");
        let action = format!("{whole}/actions");
        for (body, outcome) in [
            (json!({ "action": "retry", "ids": ["bad"] }), "200"),
            (json!({ "action": "pause" }), "default"),
        ] {
            let path = action.replace("{pipeline}", "films");
            let answer = post(site.port, &path, &body).await;
            assert_eq!(answer.status == 200, outcome == "200", "{}", answer.text());
            let found = misfits(&all, "post", &action, outcome, &answer.json());
            assert_eq!(found, Vec::<String>::new(), "{body}");
        }
    });
}

#[test]
fn misfits_are_found() {
    let all = json!({"components": {"schemas": {"Job": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "at": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "required": ["id"],
    }}}});
    let schema = json!({"type": "array", "items": {"$ref": "#/components/schemas/Job"}});
    let found = |value: Value| {
        let mut found = Vec::new();
        check(&all, &schema, &value, "", &mut found);
        found.len()
    };
    assert_eq!(
        found(json!([{"id": "a", "at": null}, {"id": "b", "at": 1}])),
        0
    );
    assert_eq!(found(json!([{"id": 1}])), 1);
    assert_eq!(found(json!([{"id": "a", "at": "x"}])), 1);
    assert_eq!(found(json!([{"id": "a", "more": 1}])), 1);
    assert_eq!(found(json!([{}])), 1);
    assert_eq!(found(json!({})), 1);
}
