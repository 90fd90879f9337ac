//! Random steps on a store beside a model of what it must hold.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Place;
use crate::page::{Log, PageSeq};
use crate::store::{Commit, Store};

/// One step of a random test. Any sequence of steps is a valid one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A commit.
    Commit {
        /// Sizes of the pages to put into the journal; 0 counts as 1.
        journal: Vec<u16>,
        /// Sizes of the pages to put into the history; 0 counts as 1.
        history: Vec<u16>,
        /// Of the pages then in each log, how many to remove, in 255ths.
        remove: [u8; 2],
    },
    /// The store is asked to reopen itself.
    Reopen,
    /// The store is dropped and opened again.
    Restart,
}

impl Step {
    /// A sequence of steps that depends on nothing but its arguments.
    #[must_use]
    pub fn random(seed: u64, steps: usize) -> Vec<Step> {
        let mut random = fastrand::Rng::with_seed(seed);
        let sizes = |most: usize, random: &mut fastrand::Rng| {
            let count = random.usize(..=most);
            let size = |random: &mut fastrand::Rng| match random.u8(..8) {
                0 => random.u16(..),
                _ => random.u16(..600),
            };
            (0..count).map(|_| size(random)).collect::<Vec<_>>()
        };
        let mut step = || match random.u8(..12) {
            0 => Step::Reopen,
            1 => Step::Restart,
            _ => Step::Commit {
                journal: sizes(5, &mut random),
                history: sizes(2, &mut random),
                remove: [random.u8(..), random.u8(..)]
                    .map(|part| if part < 128 { 0 } else { part }),
            },
        };
        (0..steps).map(|_| step()).collect()
    }
}

#[derive(Default)]
struct Model {
    pages: [BTreeMap<u64, Vec<u8>>; 2],
    next: [u64; 2],
}

/// Runs steps on a new place and checks the store against a model after each.
///
/// # Panics
///
/// When the store holds anything else than the model.
pub fn run_steps(place: &dyn Place, steps: &[Step]) {
    let mut model = Model {
        next: [1, 1],
        ..Model::default()
    };
    let mut store = place.open().expect("the store opens");
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Commit {
                journal,
                history,
                remove,
            } => {
                let commit = model.commit(number, [journal, history], *remove);
                store.commit(&commit).expect("a good commit succeeds");
            }
            Step::Reopen => assert_eq!(store.reopen().expect("reopening"), None),
            Step::Restart => {
                drop(store);
                store = place.open().expect("the store opens again");
            }
        }
        model.check(store.as_mut(), number, step);
    }
}

impl Model {
    fn commit(&mut self, number: usize, sizes: [&Vec<u16>; 2], remove: [u8; 2]) -> Commit {
        let mut commit = Commit::new();
        for (index, log) in Log::ALL.into_iter().enumerate() {
            for size in sizes[index] {
                let seq = self.next[index];
                self.next[index] += 1;
                let page = vec![(number as u8) ^ (seq as u8); usize::from(*size).max(1)];
                self.pages[index].insert(seq, page.clone());
                commit.put(log, PageSeq(seq), page);
            }
            let gone = self.pages[index].len() * usize::from(remove[index]) / 255;
            if gone > 0 {
                let first = self.next[index] - (self.pages[index].len() - gone) as u64;
                self.pages[index] = self.pages[index].split_off(&first);
                commit.truncate_before(log, PageSeq(first));
            }
        }
        commit
    }

    fn check(&self, store: &mut dyn Store, number: usize, step: &Step) {
        for (index, log) in Log::ALL.into_iter().enumerate() {
            let mut found = BTreeMap::new();
            store
                .scan(log, PageSeq(0), &mut |seq, page| {
                    found.insert(seq.0, page.to_vec());
                    ControlFlow::Continue(())
                })
                .expect("a whole store can be scanned");
            assert_eq!(
                found, self.pages[index],
                "the {log} after step {number}, {step:?}"
            );
            assert_eq!(store.bounds(log).next.0, self.next[index]);
            assert_eq!(store.bounds(log).pages(), found.len() as u64);
        }
    }
}
