//! Every target on its corpus and on a fixed row of inputs made out of it.

use std::path::Path;
use std::time::Duration;

use carbontube_fuzz_targets::TARGETS;
use carbontube_fuzz_targets::driver::{Plan, run};

/// Inputs made for each target, as many as a test has time for without optimisation.
const INPUTS: u64 = 1000;

#[test]
fn targets_find_nothing_in_their_corpus_and_in_a_row_of_inputs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let findings = std::env::temp_dir().join("carbontube-fuzz-findings");
    for target in TARGETS {
        let plan = Plan {
            corpus: root.join("fuzz/corpus"),
            findings: findings.clone(),
            seed: 1,
            time: Duration::MAX,
            inputs_max: Some(INPUTS),
            careful: false,
        };
        let done = run(target, &plan).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(done.made, INPUTS);
        assert!(done.replayed >= (target.seeds)().len());
    }
}

#[test]
fn target_names_are_unique_and_each_has_a_corpus_and_a_way_in_for_libfuzzer() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (index, target) in TARGETS.iter().enumerate() {
        let name = target.name;
        assert!(TARGETS[..index].iter().all(|other| other.name != name));
        assert!(
            fuzz.join("corpus").join(name).is_dir(),
            "no corpus for {name}"
        );
        let way_in = fuzz.join("fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(way_in).expect("a libFuzzer target");
        assert!(text.contains(&format!("{name}::TARGET")));
    }
}
