//! What one subscriber wants to hear.

use std::collections::{BTreeMap, HashMap};

use crate::Options;

/// The subscriptions of one peer, as many as the limits allow.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// How often each prefix was subscribed to.
    held: HashMap<Vec<u8>, usize>,
    /// How many different prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
    count: usize,
}

impl Topics {
    /// Adds a subscription; false when it is too long or one too many.
    pub(crate) fn subscribe(&mut self, topic: &[u8], options: &Options) -> bool {
        if topic.len() > options.topic_bytes_max || self.count >= options.topics_max {
            return false;
        }
        self.count += 1;
        match self.held.get_mut(topic) {
            Some(times) => *times += 1,
            None => {
                self.held.insert(topic.to_vec(), 1);
                *self.lengths.entry(topic.len()).or_default() += 1;
            }
        }
        true
    }

    /// Takes one subscription back; what was not subscribed to is none.
    pub(crate) fn cancel(&mut self, topic: &[u8]) {
        let Some(times) = self.held.get_mut(topic) else {
            return;
        };
        self.count -= 1;
        *times -= 1;
        if *times > 0 {
            return;
        }
        self.held.remove(topic);
        if let Some(prefixes) = self.lengths.get_mut(&topic.len()) {
            *prefixes -= 1;
            if *prefixes == 0 {
                self.lengths.remove(&topic.len());
            }
        }
    }

    /// Whether a message with this first frame is wanted.
    pub(crate) fn wants(&self, first_frame: &[u8]) -> bool {
        let mut lengths = self.lengths.range(..=first_frame.len());
        lengths.any(|(length, _)| self.held.contains_key(&first_frame[..*length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_wanted_that_begins_with_a_subscription() {
        let (mut topics, options) = (Topics::default(), Options::default());
        assert!(!topics.wants(b"job:a"), "nothing is subscribed to");
        assert!(topics.subscribe(b"job:", &options));
        assert!(topics.subscribe(b"log:encode", &options));
        for (topic, wanted) in [
            (&b"job:a"[..], true),
            (b"job:", true),
            (b"job", false),
            (b"log:split", false),
            (b"log:encode:1", true),
            (b"", false),
        ] {
            assert_eq!(topics.wants(topic), wanted, "{topic:?}");
        }
        assert!(topics.subscribe(b"", &options));
        assert!(topics.wants(b"") && topics.wants(b"anything"));
    }

    #[test]
    fn subscription_made_twice_is_cancelled_twice() {
        let (mut topics, options) = (Topics::default(), Options::default());
        assert!(topics.subscribe(b"a", &options) && topics.subscribe(b"a", &options));
        topics.cancel(b"a");
        assert!(topics.wants(b"a"));
        topics.cancel(b"a");
        topics.cancel(b"a");
        topics.cancel(b"b");
        assert!(!topics.wants(b"a"));
        assert!(topics.held.is_empty() && topics.lengths.is_empty());
        assert_eq!(topics.count, 0);
    }

    #[test]
    fn subscriptions_over_the_limits_are_refused() {
        let options = Options {
            topics_max: 2,
            topic_bytes_max: 3,
            ..Options::default()
        };
        let mut topics = Topics::default();
        assert!(!topics.subscribe(b"four", &options));
        assert!(topics.subscribe(b"one", &options) && topics.subscribe(b"one", &options));
        assert!(!topics.subscribe(b"two", &options));
        topics.cancel(b"one");
        assert!(topics.subscribe(b"two", &options));
    }
}
