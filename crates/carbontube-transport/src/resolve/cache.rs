//! What look-ups found, for a while.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Found;

/// How long addresses are remembered for strangers.
const FOUND_KEPT: Duration = Duration::from_secs(30);
/// How long it is remembered that there were none.
const NOTHING_KEPT: Duration = Duration::from_secs(5);
/// The most names remembered of either sort.
const NAMES_MAX: usize = 1024;

/// Names that were looked up lately.
#[derive(Debug, Default)]
pub(super) struct Cache {
    found: BTreeMap<String, (Instant, Vec<IpAddr>)>,
    /// Apart, so that names that do not exist push out none that do.
    nothing: BTreeMap<String, Instant>,
}

impl Cache {
    pub(super) fn get(&self, name: &str, now: Instant) -> Found {
        let is_fresh = |at: &Instant, kept| now.saturating_duration_since(*at) < kept;
        if let Some((_, found)) = self
            .found
            .get(name)
            .filter(|it| is_fresh(&it.0, FOUND_KEPT))
        {
            return Found::Addresses(found.clone());
        }
        match self.nothing.get(name) {
            Some(at) if is_fresh(at, NOTHING_KEPT) => Found::Nothing,
            _ => Found::Unknown,
        }
    }

    pub(super) fn put(&mut self, name: String, found: Option<&Vec<IpAddr>>, now: Instant) {
        match found {
            Some(found) => {
                self.nothing.remove(&name);
                if self.found.len() >= NAMES_MAX {
                    let kept = |at: &Instant| now.saturating_duration_since(*at) < FOUND_KEPT;
                    self.found.retain(|_, (at, _)| kept(at));
                }
                if self.found.len() >= NAMES_MAX {
                    let oldest = self.found.iter().min_by_key(|(_, (at, _))| *at);
                    let oldest = oldest.map(|(name, _)| name.clone());
                    oldest.map(|oldest| self.found.remove(&oldest));
                }
                self.found.insert(name, (now, found.clone()));
            }
            None => {
                self.found.remove(&name);
                if self.nothing.len() >= NAMES_MAX {
                    self.nothing.clear();
                }
                self.nothing.insert(name, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forgotten_after_a_while_and_few_are_kept() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let here = vec![IpAddr::from([127, 0, 0, 1])];
        cache.put("a".to_owned(), Some(&here), start);
        cache.put("b".to_owned(), None, start);
        assert_eq!(cache.get("a", start), Found::Addresses(here.clone()));
        assert_eq!(cache.get("b", start), Found::Nothing);
        assert_eq!(cache.get("a", start + FOUND_KEPT), Found::Unknown);
        assert_eq!(cache.get("b", start + NOTHING_KEPT), Found::Unknown);
        for n in 0..5000 {
            cache.put(format!("n{n}"), None, start);
        }
        assert_eq!(cache.get("a", start), Found::Addresses(here.clone()));
        for n in 0..5000 {
            cache.put(
                format!("f{n}"),
                Some(&here),
                start + Duration::from_millis(1),
            );
        }
        assert!(cache.found.len() <= NAMES_MAX && cache.nothing.len() <= NAMES_MAX);
    }
}
