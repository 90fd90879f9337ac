//! Rules about which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

use super::Problem;
use crate::cargo;

/// What each of our crates may depend on of ours. Packages outside `crates/` may use all.
const ARROWS: [(&str, &[&str]); 9] = [
    ("carbontube-mutation", &[]),
    ("carbontube-protocol", &[]),
    ("carbontube-storage", &["carbontube-mutation"]),
    ("carbontube-transport", &["carbontube-protocol"]),
    (
        "carbontube-manager",
        &[
            "carbontube-mutation",
            "carbontube-protocol",
            "carbontube-storage",
            "carbontube-transport",
        ],
    ),
    (
        "carbontube-worker",
        &[
            "carbontube-mutation",
            "carbontube-protocol",
            "carbontube-transport",
        ],
    ),
    (
        "carbontube-client",
        &[
            "carbontube-mutation",
            "carbontube-protocol",
            "carbontube-transport",
        ],
    ),
    (
        "carbontube-web",
        &[
            "carbontube-protocol",
            "carbontube-transport",
            "carbontube-client",
        ],
    ),
    (
        "carbontube",
        &[
            "carbontube-protocol",
            "carbontube-storage",
            "carbontube-transport",
            "carbontube-manager",
            "carbontube-worker",
            "carbontube-client",
            "carbontube-web",
        ],
    ),
];

/// Packages of ours that nothing is built on: they may use all.
const OUTSIDE: [&str; 3] = [
    "carbontube-tests",
    "carbontube-sim",
    "carbontube-fuzz-targets",
];

/// Features of ours that only tests and the simulator ask for.
const UNSHIPPED: [&str; 2] = ["testing", "enabled"];

/// What only one of our crates may name, and which.
const OWNED: [(&str, &str); 4] = [
    ("zeromq", "carbontube-transport"),
    ("sled", "carbontube-storage"),
    ("redis", "carbontube-storage"),
    ("bincode", "carbontube-protocol"),
];

/// Crates that have no place in the shipped binary: another runtime, or C code that
/// speaks a wire.
const BANNED: [&str; 17] = [
    "tokio",
    "zmq",
    "zmq-sys",
    "zeromq-src",
    "zmq2-sys",
    "nng-sys",
    "nanomsg-sys",
    "rdkafka-sys",
    "librabbitmq-sys",
    "openssl",
    "openssl-sys",
    "native-tls",
    "aws-lc-sys",
    "aws-lc-rs",
    "libsodium-sys",
    "ring",
    "boring-sys",
];

/// `-sys` crates that hold constants or the platform's own interface, and link no C library.
const HARMLESS_SYS: [&str; 5] = [
    "linux-raw-sys",
    "windows-sys",
    "js-sys",
    "web-sys",
    "core-foundation-sys",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Checks the workspace's dependencies as cargo reports them.
pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let metadata = cargo::output(root, &["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    let direct: BTreeMap<String, BTreeSet<String>> = metadata
        .packages
        .into_iter()
        .map(|package| {
            let normal = package
                .dependencies
                .into_iter()
                .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
                .map(|dependency| dependency.name)
                .collect();
            (package.name, normal)
        })
        .collect();
    let mut problems = arrows(&direct);
    let tree = |features: &[&str]| {
        let mut arguments = vec!["tree", "--package", "carbontube"];
        arguments.extend(["--edges", "normal,build", "--prefix", "none"]);
        arguments.extend(["--format", "{p} [{f}]"]);
        arguments.extend(features);
        cargo::output(root, &arguments)
    };
    problems.extend(shipped(&tree(&["--all-features"])?));
    // As `cargo xtask dist` builds it.
    problems.extend(shipped_features(&tree(&["--features", "redis"])?));
    Ok(problems)
}

fn arrows(direct: &BTreeMap<String, BTreeSet<String>>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (package, dependencies) in direct {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == package) else {
            if package.starts_with("carbontube-") && !OUTSIDE.contains(&package.as_str()) {
                let text = "has no place in the dependency arrows; give it one in tidy";
                problems.push(Problem::new(package, None, text));
            }
            continue;
        };
        for dependency in dependencies {
            if dependency.starts_with("carbontube") && !allowed.contains(&dependency.as_str()) {
                let text = format!("may not depend on {dependency}: the arrows point one way");
                problems.push(Problem::new(package, None, text));
            }
            if let Some((_, owner)) = OWNED.iter().find(|(name, _)| name == dependency)
                && owner != package
                // The records of the manager's journal are bincode as well.
                && (dependency.as_str(), package.as_str()) != ("bincode", "carbontube-manager")
            {
                let text = format!("may not depend on {dependency}: only {owner} names it");
                problems.push(Problem::new(package, None, text));
            }
        }
    }
    problems
}

fn shipped(tree: &str) -> Vec<Problem> {
    let names: BTreeSet<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    names
        .into_iter()
        .filter(|name| {
            BANNED.contains(name) || (name.ends_with("-sys") && !HARMLESS_SYS.contains(name))
        })
        .map(|name| Problem::new(name, None, "has no place in the shipped binary's tree"))
        .collect()
}

/// What the binary must not be built with: code for tests, and deliberate faults.
fn shipped_features(tree: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let lines: BTreeSet<&str> = tree.lines().collect();
    for line in lines {
        let name = line.split_whitespace().next().unwrap_or_default();
        let features = line.split(['[', ']']).nth(1).unwrap_or_default();
        let of_tests = |feature: &&str| UNSHIPPED.contains(feature);
        if name.starts_with("carbontube")
            && !line.ends_with("(*)")
            && let Some(feature) = features.split(',').find(of_tests)
        {
            let text = format!("is shipped with feature {feature}, which is for tests alone");
            problems.push(Problem::new(name, None, text));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, BTreeSet<String>> {
        edges
            .iter()
            .map(|(from, to)| {
                let to = to.iter().map(|name| (*name).to_owned()).collect();
                ((*from).to_owned(), to)
            })
            .collect()
    }

    #[test]
    fn arrows_that_point_the_right_way_pass() {
        let good = graph(&[
            ("carbontube-protocol", &["serde", "bincode"]),
            ("carbontube-transport", &["carbontube-protocol", "zeromq"]),
            ("carbontube-tests", &["carbontube"]),
        ]);
        assert_eq!(arrows(&good), []);
    }

    #[test]
    fn arrow_that_points_back_is_found() {
        let bad = graph(&[("carbontube-protocol", &["carbontube-transport"])]);
        assert_eq!(arrows(&bad).len(), 1);
        let sideways = graph(&[("carbontube-worker", &["carbontube-manager"])]);
        assert_eq!(arrows(&sideways).len(), 1);
    }

    #[test]
    fn crate_outside_the_table_is_found() {
        assert_eq!(arrows(&graph(&[("carbontube-extra", &[])])).len(), 1);
    }

    #[test]
    fn only_the_transport_names_zeromq() {
        let bad = graph(&[("carbontube-manager", &["zeromq"])]);
        assert_eq!(arrows(&bad).len(), 1);
    }

    #[test]
    fn banned_crates_in_the_tree_are_found() {
        let tree = "carbontube v0.1.0 (/x)\nlinux-raw-sys v0.9.4\ntokio v1.0.0\nzmq-sys v0.12.0\nodd-sys v1.0.0\ntokio v1.0.0 (*)\n";
        let found: Vec<String> = shipped(tree).into_iter().map(|p| p.place).collect();
        assert_eq!(found, ["odd-sys", "tokio", "zmq-sys"]);
    }

    #[test]
    fn testing_features_in_the_binary_are_found() {
        let tree = "carbontube v0.1.0 (/x) [redis]\n\
            carbontube-storage v0.1.0 (/x) [redis,testing]\n\
            carbontube-mutation v0.1.0 (/x) [enabled]\n\
            carbontube-mutation v0.1.0 (/x) [enabled] (*)\n\
            other v1.0.0 [testing]\n";
        let found: Vec<String> = shipped_features(tree)
            .into_iter()
            .map(|p| p.place)
            .collect();
        assert_eq!(found, ["carbontube-mutation", "carbontube-storage"]);
        assert_eq!(shipped_features("carbontube v0.1.0 (/x) [redis]\n"), []);
    }
}
