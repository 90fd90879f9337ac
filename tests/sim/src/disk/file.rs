//! A file on a disk that writes sectors when it likes: what a sync promises, and no more.

use std::collections::BTreeSet;

use fastrand::Rng;

/// What a disk writes whole or not at all, if it is kind.
pub(super) const SECTOR_BYTES: usize = 512;

/// How unsynced writes fare.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// The chance of each unsynced sector to be there after the power went.
    pub survives: f64,
    /// The chance of such a sector to be written only in part.
    pub tears: f64,
    /// The chance of each sector to be there all the same after a sync failed.
    pub failed_sync_keeps: f64,
    /// The chance that after a failed sync readers see what is on the disk, not what was
    /// written: the system has given the rest up.
    pub failed_sync_evicts: f64,
}

impl DiskFaults {
    /// Draws how careless this world's disk is.
    pub fn draw(random: &mut Rng) -> DiskFaults {
        let mut one_of = |of: &[f64]| of[random.usize(..of.len())];
        DiskFaults {
            survives: one_of(&[0.0, 0.2, 0.5, 0.9, 1.0]),
            tears: one_of(&[0.0, 0.1, 0.5]),
            failed_sync_keeps: one_of(&[0.0, 0.5, 1.0]),
            failed_sync_evicts: one_of(&[0.0, 0.5, 1.0]),
        }
    }
}

/// A file: what readers see, and what would be left without power.
#[derive(Clone, Debug, Default)]
pub(super) struct VirtualFile {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Sectors that a sync has yet to write.
    dirty: BTreeSet<usize>,
    shrunk: bool,
}

impl VirtualFile {
    /// What readers see.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    /// Writes at a place, which is at most the end.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[at..end].copy_from_slice(bytes);
        self.dirty
            .extend(at / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
    }

    /// Cuts the file.
    pub(super) fn truncate(&mut self, length: usize) {
        if length < self.cached.len() {
            self.cached.truncate(length);
            self.shrunk = true;
            self.dirty.split_off(&length.div_ceil(SECTOR_BYTES));
        }
    }

    /// Everything written so far is safe now.
    pub(super) fn sync(&mut self) {
        self.shrink();
        for sector in std::mem::take(&mut self.dirty) {
            self.write_through(sector, SECTOR_BYTES);
        }
    }

    /// A sync that fails: some of it is safe, and the system forgets which was not.
    pub(super) fn fail_sync(&mut self, faults: &DiskFaults, random: &mut Rng) {
        if self.shrunk && random.f64() < faults.failed_sync_keeps {
            self.shrink();
        }
        self.shrunk = false;
        for sector in std::mem::take(&mut self.dirty) {
            if random.f64() < faults.failed_sync_keeps {
                self.write_through(sector, SECTOR_BYTES);
            }
        }
        if random.f64() < faults.failed_sync_evicts {
            self.cached.clone_from(&self.durable);
        }
    }

    /// The power goes: unsynced sectors are there or not, whole or in part, each by itself.
    pub(super) fn crash(&mut self, faults: &DiskFaults, random: &mut Rng) {
        if self.shrunk && random.f64() < faults.survives {
            self.shrink();
        }
        self.shrunk = false;
        for sector in std::mem::take(&mut self.dirty) {
            if random.f64() < faults.survives {
                let torn = random.f64() < faults.tears;
                let bytes = if torn {
                    random.usize(..SECTOR_BYTES)
                } else {
                    SECTOR_BYTES
                };
                self.write_through(sector, bytes);
            }
        }
        self.cached.clone_from(&self.durable);
    }

    /// Puts other bytes in the place of all, as damage or as a copy put back does.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.durable.clone_from(&bytes);
        self.cached = bytes;
        self.dirty.clear();
        self.shrunk = false;
    }

    fn shrink(&mut self) {
        self.durable.truncate(self.cached.len());
        self.shrunk = false;
    }

    fn write_through(&mut self, sector: usize, bytes: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + bytes).min(self.cached.len());
        if from >= to {
            return;
        }
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(&self.cached[from..to]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: DiskFaults = DiskFaults {
        survives: 0.0,
        tears: 0.0,
        failed_sync_keeps: 0.0,
        failed_sync_evicts: 0.0,
    };

    fn file_of(bytes: &[u8]) -> VirtualFile {
        let mut file = VirtualFile::default();
        file.write(0, bytes);
        file.sync();
        file
    }

    #[test]
    fn what_is_synced_survives_and_what_is_not_is_lost() {
        let mut file = file_of(b"synced");
        file.write(6, b" and more");
        assert_eq!(file.bytes(), b"synced and more");
        file.crash(&LOST, &mut Rng::with_seed(1));
        assert_eq!(file.bytes(), b"synced");
    }

    #[test]
    fn unsynced_sectors_survive_each_by_itself() {
        let half = DiskFaults {
            survives: 0.5,
            ..LOST
        };
        let mut reordered = 0;
        for seed in 0..50 {
            let mut file = VirtualFile::default();
            file.write(0, &[7; 4 * SECTOR_BYTES]);
            file.crash(&half, &mut Rng::with_seed(seed));
            let sectors: Vec<bool> = file
                .bytes()
                .chunks(SECTOR_BYTES)
                .map(|s| s[0] == 7)
                .collect();
            reordered += u32::from(sectors.windows(2).any(|pair| !pair[0] && pair[1]));
        }
        assert!(
            reordered > 10,
            "a later sector without an earlier one: {reordered}"
        );
    }

    #[test]
    fn torn_sector_has_a_part_of_what_was_written() {
        let torn = DiskFaults {
            survives: 1.0,
            tears: 1.0,
            ..LOST
        };
        let mut file = file_of(&[1; SECTOR_BYTES]);
        file.write(0, &[2; SECTOR_BYTES]);
        file.crash(&torn, &mut Rng::with_seed(3));
        let new = file.bytes().iter().filter(|byte| **byte == 2).count();
        assert!(new < SECTOR_BYTES, "{new}");
        assert!(file.bytes()[new..].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn failed_sync_shows_what_the_disk_does_not_have() {
        let mut file = file_of(b"old");
        file.write(0, b"new");
        file.fail_sync(&LOST, &mut Rng::with_seed(1));
        assert_eq!(file.bytes(), b"new", "still in the cache");
        file.sync();
        file.crash(&LOST, &mut Rng::with_seed(1));
        assert_eq!(file.bytes(), b"old", "a later sync does not write it");
    }

    #[test]
    fn cut_that_was_not_synced_may_come_back() {
        let mut file = file_of(&[5; 3 * SECTOR_BYTES]);
        file.truncate(10);
        assert_eq!(file.bytes().len(), 10);
        let mut synced = file.clone();
        file.crash(&LOST, &mut Rng::with_seed(1));
        assert_eq!(file.bytes().len(), 3 * SECTOR_BYTES);
        synced.sync();
        synced.crash(&LOST, &mut Rng::with_seed(1));
        assert_eq!(synced.bytes().len(), 10);
    }
}
