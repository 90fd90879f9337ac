//! Log-linear histograms of durations: small, fast, and exact to an eighth.

use carbontube_protocol::message;

/// Buckets for each doubling.
const PARTS: usize = 8;
/// Enough for 2^42 microseconds, seven weeks; longer ones count as that.
const BUCKETS: usize = (42 - 3 + 1) * PARTS;

fn bucket(value: u64) -> usize {
    if value < PARTS as u64 {
        return usize::try_from(value).unwrap_or(0);
    }
    let shift = value.ilog2() as usize - 3;
    let part = usize::try_from(value >> shift).unwrap_or(0) & (PARTS - 1);
    ((shift + 1) * PARTS + part).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    (((PARTS + bucket % PARTS + 1) as u64) << shift) - 1
}

/// How often values fell into each bucket.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            sum: 0,
        }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, micros: u64) {
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(micros);
    }

    pub(super) fn clear(&mut self) {
        if self.count > 0 {
            self.buckets.fill(0);
            self.count = 0;
            self.sum = 0;
        }
    }

    /// The upper end of the bucket with the value that so many thousandths are not above;
    /// 0 when there are no values.
    pub(super) fn quantile(&self, thousandths: u64) -> u64 {
        let wanted = (self.count * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && self.count > 0 {
                return upper(index);
            }
        }
        0
    }

    pub(super) fn view(&self) -> message::Histogram {
        let filled = self.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
        message::Histogram {
            count: self.count,
            sum_us: self.sum,
            buckets: filled.map(|(index, n)| (upper(index), *n)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_holds_it() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend((12..42).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]));
        for value in values {
            let index = bucket(value);
            assert!(value <= upper(index), "{value} is above bucket {index}");
            let below = index.checked_sub(1).map(upper);
            assert!(below.is_none_or(|below| below < value), "{value} is below");
            assert!(
                upper(index) - value <= value / 8,
                "{value} is not known to an eighth"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), 0);
        for value in 1..=1000 {
            histogram.record(value);
        }
        let (median, high) = (histogram.quantile(500), histogram.quantile(990));
        assert!((500..=562).contains(&median), "{median}");
        assert!((990..=1114).contains(&high), "{high}");
        let view = histogram.view();
        assert_eq!((view.count, view.sum_us), (1000, 500_500));
        assert_eq!(view.buckets.iter().map(|(_, n)| n).sum::<u64>(), 1000);
        histogram.clear();
        assert_eq!(histogram.view(), message::Histogram::default());
    }
}
