//! What the workspace is built of, against `deny.toml`: licences, sources, banned crates,
//! crates in two versions, and exceptions that nothing needs any more.
//!
//! It reads what `cargo deny` reads and needs no network; advisories it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Problem;
use crate::cargo;

/// The file, and what problems are said of.
const FILE: &str = "deny.toml";

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    advisories: Advisories,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Advisories {
    ignore: Vec<Ignored>,
}

#[derive(Deserialize)]
struct Ignored {
    /// Begins with the crate's name and a colon.
    reason: String,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Named>,
    skip: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    /// `name`, or `name@version` with as many of the version's numbers as matter.
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A crate that the workspace is built of, or one of its own.
#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for our own.
    source: Option<String>,
}

/// Checks everything for every target that is named.
pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let text = std::fs::read_to_string(root.join(FILE)).context("reading deny.toml")?;
    let rules: Rules = toml::from_str(&text).context("deny.toml")?;
    // Others differ in a few packages only, which their own builds would fetch first.
    let target = rules
        .graph
        .targets
        .first()
        .context("deny.toml names no target")?;
    let mut arguments = vec![
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
    ];
    arguments.extend(["--filter-platform", target]);
    let metadata: Metadata = serde_json::from_str(&cargo::output(root, &arguments)?)?;
    Ok(problems(&rules, &metadata.packages))
}

fn problems(rules: &Rules, packages: &[Package]) -> Vec<Problem> {
    let foreign: Vec<&Package> = packages.iter().filter(|p| p.source.is_some()).collect();
    let mut problems = Vec::new();
    for package in &foreign {
        problems.extend(licence(&rules.licenses, package));
        problems.extend(source(&rules.sources, package));
        if rules.bans.deny.iter().any(|named| named.is(package)) {
            problems.push(Problem::new(&package.name, None, "is banned in deny.toml"));
        }
    }
    problems.extend(versions(&rules.bans.skip, &foreign));
    for ignored in &rules.advisories.ignore {
        let name = ignored.reason.split(':').next().unwrap_or_default();
        if !foreign.iter().any(|package| package.name == name) {
            let text = format!("excuses {name:?}, which the workspace is not built of");
            problems.push(Problem::new(FILE, None, text));
        }
    }
    problems
}

impl Named {
    fn is(&self, package: &Package) -> bool {
        match self.name.split_once('@') {
            None => self.name == package.name,
            Some((name, version)) => {
                let rest = package.version.strip_prefix(version);
                name == package.name && rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
            }
        }
    }
}

fn licence(licences: &Licences, package: &Package) -> Option<Problem> {
    let Some(text) = &package.license else {
        return Some(Problem::new(&package.name, None, "names no licence"));
    };
    let allowed = |id: &str| licences.allow.iter().any(|known| known == id);
    // The slash is how it was written before there was SPDX.
    (!may_be_used(&text.replace('/', " OR "), &allowed)).then(|| {
        let text = format!("has the licence {text:?}, which deny.toml does not allow");
        Problem::new(&package.name, None, text)
    })
}

/// Whether an SPDX expression lets us use a crate under licences that are allowed.
fn may_be_used(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.trim();
    let choices = parts(expression, " OR ");
    if choices.len() > 1 {
        return choices.into_iter().any(|one| may_be_used(one, allowed));
    }
    let sums = parts(expression, " AND ");
    if sums.len() > 1 {
        return sums.into_iter().all(|one| may_be_used(one, allowed));
    }
    match expression
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) => may_be_used(inner, allowed),
        None => allowed(expression),
    }
}

/// Splits at an operator that stands outside of parentheses.
fn parts<'t>(text: &'t str, operator: &str) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let (mut depth, mut from, mut at) = (0_usize, 0, 0);
    while let Some(c) = text[at..].chars().next() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 && text[at..].starts_with(operator) => {
                parts.push(&text[from..at]);
                from = at + operator.len();
                at = from;
                continue;
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    parts.push(&text[from..]);
    parts
}

fn source(sources: &Sources, package: &Package) -> Option<Problem> {
    let source = package.source.as_deref()?;
    let known = sources
        .allow_registry
        .iter()
        .any(|registry| source.strip_prefix("registry+") == Some(registry));
    (!known).then(|| {
        let text = format!("comes from {source}, which deny.toml does not allow");
        Problem::new(&package.name, None, text)
    })
}

/// Each crate has one version, but for those that are skipped.
fn versions(skip: &[Named], packages: &[&Package]) -> Vec<Problem> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        all.entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    let mut problems = Vec::new();
    let mut counted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        if !skip.iter().any(|named| named.is(package)) {
            counted
                .entry(&package.name)
                .or_default()
                .insert(&package.version);
        }
    }
    for (name, versions) in counted {
        if versions.len() > 1 {
            let list: Vec<&str> = versions.into_iter().collect();
            let text = format!("is there as {}: one is enough", list.join(" and "));
            problems.push(Problem::new(name, None, text));
        }
    }
    for named in skip {
        let name = named.name.split('@').next().unwrap_or_default();
        let needed = all.get(name).is_some_and(|versions| versions.len() > 1)
            && packages.iter().any(|package| named.is(package));
        if !needed {
            let text = format!("skips {:?}, which is not there in two versions", named.name);
            problems.push(Problem::new(FILE, None, text));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

    fn rules() -> Rules {
        toml::from_str(
            r#"
            [graph]
            targets = ["x"]
            [advisories]
            ignore = [{ id = "RUSTSEC-0", reason = "old: it stays" }]
            [licenses]
            allow = ["MIT", "Zlib", "Unicode-3.0"]
            [bans]
            deny = [{ crate = "tokio" }]
            skip = [{ crate = "twice@1" }]
            [sources]
            allow-registry = ["https://github.com/rust-lang/crates.io-index"]
            "#,
        )
        .expect("the rules are right")
    }

    fn package(name: &str, version: &str, licence: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: Some(licence.to_owned()),
            source: Some(CRATES_IO.to_owned()),
        }
    }

    fn good() -> Vec<Package> {
        vec![
            package("old", "0.1.0", "MIT OR Apache-2.0"),
            package("twice", "1.0.0", "MIT"),
            package("twice", "2.0.0", "Zlib"),
            Package {
                source: None,
                license: None,
                ..package("own", "0.0.0", "")
            },
        ]
    }

    /// What is found when one more crate is there.
    fn found(more: Package) -> Vec<String> {
        let mut packages = good();
        packages.push(more);
        let found = problems(&rules(), &packages);
        found
            .into_iter()
            .map(|p| format!("{}: {}", p.place, p.text))
            .collect()
    }

    #[test]
    fn workspace_as_allowed_has_no_problem() {
        assert_eq!(problems(&rules(), &good()), []);
    }

    #[test]
    fn licence_that_is_not_allowed_is_found() {
        assert_eq!(found(package("x", "1.0.0", "GPL-3.0")).len(), 1);
        assert_eq!(found(package("x", "1.0.0", "MIT AND GPL-3.0")).len(), 1);
        let none = Package {
            license: None,
            ..package("x", "1.0.0", "")
        };
        assert_eq!(found(none), ["x: names no licence"]);
        for good in [
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "GPL-2.0 OR (MIT AND Zlib)",
        ] {
            assert_eq!(found(package("x", "1.0.0", good)), [""; 0], "{good}");
        }
    }

    #[test]
    fn crate_banned_or_from_elsewhere_is_found() {
        assert_eq!(
            found(package("tokio", "1.0.0", "MIT")),
            ["tokio: is banned in deny.toml"]
        );
        let elsewhere = Package {
            source: Some("git+https://example.org/x".to_owned()),
            ..package("x", "1.0.0", "MIT")
        };
        assert_eq!(found(elsewhere).len(), 1);
    }

    #[test]
    fn version_too_many_is_found() {
        assert_eq!(
            found(package("old", "0.2.0", "MIT")),
            ["old: is there as 0.1.0 and 0.2.0: one is enough"]
        );
        assert_eq!(found(package("twice", "3.0.0", "MIT")).len(), 1);
        // Of a version that is skipped, one is enough as well, as cargo deny has it.
        assert_eq!(found(package("twice", "1.1.0", "MIT")), [""; 0]);
    }

    #[test]
    fn exception_that_nothing_needs_is_found() {
        let mut packages = good();
        packages.remove(0);
        packages.remove(0);
        let places: Vec<String> = problems(&rules(), &packages)
            .into_iter()
            .map(|problem| problem.text)
            .collect();
        assert_eq!(
            places,
            [
                "skips \"twice@1\", which is not there in two versions",
                "excuses \"old\", which the workspace is not built of",
            ]
        );
    }
}
