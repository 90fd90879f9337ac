//! A seed is one world and no other.

use super::{regressions, run_seed};

#[test]
fn seed_run_twice_leaves_the_same_trace() {
    for seed in [1, 2, 3] {
        let (one, other) = (run_seed(seed, false, None), run_seed(seed, false, None));
        assert!(one.steps > 100, "seed {seed} does something");
        assert_eq!((one.hash, one.steps), (other.hash, other.steps), "{seed}");
    }
}

#[test]
fn seeds_that_differ_leave_traces_that_differ() {
    assert_ne!(run_seed(1, false, None).hash, run_seed(2, false, None).hash);
}

#[test]
fn regressions_are_seeds_and_each_stands_once() {
    let seeds = regressions();
    let mut once = seeds.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seeds.len());
}
