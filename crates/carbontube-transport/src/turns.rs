//! What waits for a turn, fair between those who sent it: each host in turn, of a host each
//! connection, of a connection what came first. Whoever sends a lot waits behind itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::Origin;

/// Items that wait, the newest for each key of a connection.
#[derive(Debug)]
pub struct Turns<K, T> {
    hosts: BTreeMap<Option<IpAddr>, Lines<K, T>>,
    order: VecDeque<Option<IpAddr>>,
    items_max: usize,
    bytes_max: usize,
    items: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Lines<K, T> {
    lines: BTreeMap<u64, Line<K, T>>,
    order: VecDeque<u64>,
}

#[derive(Debug)]
struct Line<K, T> {
    places: BTreeMap<K, u64>,
    items: BTreeMap<u64, Item<K, T>>,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Item<K, T> {
    key: K,
    value: T,
    bytes: usize,
    origin: Origin,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<T> {
    /// It waits for its turn.
    Waits,
    /// It took the place of an older one.
    Newer(T),
    /// It waits, and these had to go: there was no room, and they are of who had most.
    Displaced(Vec<T>),
}

impl<K: Ord + Clone, T> Turns<K, T> {
    /// Room for so many items, and so many bytes of them.
    #[must_use]
    pub fn new(items_max: usize, bytes_max: usize) -> Self {
        Self {
            hosts: BTreeMap::new(),
            order: VecDeque::new(),
            items_max: items_max.max(1),
            bytes_max,
            items: 0,
            bytes: 0,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether any connection has an item of this key.
    pub fn has(&self, key: &K) -> bool {
        let mut lines = self.hosts.values().flat_map(|host| host.lines.values());
        lines.any(|line| line.places.contains_key(key))
    }

    /// Adds an item, in the place of an older one of its key and connection.
    pub fn put(&mut self, origin: Origin, key: K, value: T, bytes: usize) -> Placed<T> {
        let host = self.hosts.entry(origin.host).or_insert_with(|| {
            self.order.push_back(origin.host);
            Lines {
                lines: BTreeMap::new(),
                order: VecDeque::new(),
            }
        });
        let line = host.lines.entry(origin.connection).or_insert_with(|| {
            host.order.push_back(origin.connection);
            Line {
                places: BTreeMap::new(),
                items: BTreeMap::new(),
                last: 0,
                bytes: 0,
            }
        });
        let item = Item {
            key: key.clone(),
            value,
            bytes,
            origin,
        };
        self.bytes += bytes;
        line.bytes += bytes;
        if let Some(place) = line.places.get(&key) {
            // It keeps its place, or what comes often would never have its turn.
            let older = line.items.insert(*place, item);
            let Some(older) = older else {
                return Placed::Waits;
            };
            self.bytes -= older.bytes;
            line.bytes -= older.bytes;
            return Placed::Newer(older.value);
        }
        line.last += 1;
        line.places.insert(key, line.last);
        line.items.insert(line.last, item);
        self.items += 1;
        let mut displaced = Vec::new();
        while self.items > self.items_max || self.bytes > self.bytes_max && self.items > 1 {
            displaced.extend(self.displace());
        }
        match displaced.is_empty() {
            true => Placed::Waits,
            false => Placed::Displaced(displaced),
        }
    }

    /// Takes the item whose turn it is.
    pub fn take(&mut self) -> Option<(Origin, K, T)> {
        self.take_of(|_, _| true)
    }

    /// The same, of those connections that may have a turn now.
    pub fn take_of(&mut self, may: impl Fn(Option<IpAddr>, u64) -> bool) -> Option<(Origin, K, T)> {
        let (at, host, connection) = self.order.iter().enumerate().find_map(|(at, host)| {
            let lines = self.hosts.get(host)?;
            let connection = lines.order.iter().find(|line| may(*host, **line))?;
            Some((at, *host, *connection))
        })?;
        // Those that were passed over keep their places before the ones that had a turn.
        self.order.remove(at);
        self.order.push_back(host);
        let lines = self.hosts.get_mut(&host)?;
        lines.order.retain(|line| *line != connection);
        lines.order.push_back(connection);
        let item = self.remove_first(host, connection)?;
        Some((item.origin, item.key, item.value))
    }

    /// Drops the oldest item of the connection that has most.
    fn displace(&mut self) -> Option<T> {
        let too_many = self.items > self.items_max;
        let hosts = self.hosts.iter();
        let lines = hosts.flat_map(|(host, lines)| {
            lines.lines.iter().map(|(connection, line)| {
                let size = if too_many {
                    line.items.len()
                } else {
                    line.bytes
                };
                (size, *host, *connection)
            })
        });
        let (_, host, connection) = lines.max()?;
        self.remove_first(host, connection).map(|item| item.value)
    }

    fn remove_first(&mut self, host: Option<IpAddr>, connection: u64) -> Option<Item<K, T>> {
        let lines = self.hosts.get_mut(&host)?;
        let line = lines.lines.get_mut(&connection)?;
        let (_, item) = line.items.pop_first()?;
        line.places.remove(&item.key);
        line.bytes -= item.bytes;
        self.items -= 1;
        self.bytes -= item.bytes;
        if line.items.is_empty() {
            lines.lines.remove(&connection);
            lines.order.retain(|line| *line != connection);
            if lines.lines.is_empty() {
                self.hosts.remove(&host);
                self.order.retain(|other| *other != host);
            }
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: u8, connection: u64) -> Origin {
        Origin {
            host: Some([10, 0, 0, host].into()),
            connection,
            is_local: false,
        }
    }

    fn all(turns: &mut Turns<u32, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.take().map(|(_, _, value)| value)).collect()
    }

    #[test]
    fn hosts_and_then_connections_have_their_turns() {
        let mut turns = Turns::new(100, 1000);
        for n in 0..4 {
            turns.put(origin(1, 1), n, n, 1);
        }
        turns.put(origin(1, 2), 10, 10, 1);
        turns.put(origin(2, 3), 20, 20, 1);
        assert_eq!(all(&mut turns), [0, 20, 10, 1, 2, 3]);
        assert!(turns.is_empty() && turns.hosts.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn newest_of_a_key_takes_the_place_of_the_older() {
        let mut turns = Turns::new(100, 1000);
        turns.put(origin(1, 1), 1, 1, 5);
        turns.put(origin(1, 1), 2, 2, 5);
        assert_eq!(turns.put(origin(1, 1), 1, 3, 7), Placed::Newer(1));
        // Another connection may claim the same, and does not disturb it.
        assert_eq!(turns.put(origin(1, 2), 1, 4, 7), Placed::Waits);
        assert_eq!((turns.len(), turns.bytes), (3, 19));
        assert_eq!(all(&mut turns), [3, 4, 2]);
        assert_eq!(turns.bytes, 0);
    }

    #[test]
    fn who_has_most_gives_way() {
        let mut turns = Turns::new(10, 1000);
        turns.put(origin(1, 1), 1000, 1000, 1);
        for n in 0..500 {
            turns.put(origin(2, 2), n, n, 1);
        }
        assert_eq!(turns.len(), 10);
        assert_eq!(turns.take().map(|(_, _, value)| value), Some(1000));
        // By bytes, too.
        let mut turns = Turns::new(10, 1000);
        turns.put(origin(1, 1), 1001, 1001, 990);
        for n in 0..9 {
            turns.put(origin(2, 2), n, n, 1);
        }
        turns.take_of(|_, connection| connection == 2);
        let placed = turns.put(origin(3, 3), 1, 1, 5);
        assert!(
            matches!(&placed, Placed::Displaced(gone) if gone == &[1001]),
            "{placed:?}"
        );
    }

    #[test]
    fn those_passed_over_keep_their_turn() {
        let mut turns = Turns::new(10, 1000);
        for n in 0..2 {
            turns.put(origin(1, 1), n, n, 1);
            turns.put(origin(2, 2), 10 + n, 10 + n, 1);
        }
        let other = turns.take_of(|_, connection| connection == 2);
        assert_eq!(other.map(|(_, _, value)| value), Some(10));
        assert_eq!(all(&mut turns), [0, 11, 1]);
    }
}
