//! Makes new inputs out of old ones.

use fastrand::Rng;

/// Makes an input out of one of `corpus`, with words of `dictionary`; the same with the
/// same state of `random`.
pub fn mutate(
    corpus: &[Vec<u8>],
    dictionary: &[&[u8]],
    bytes_max: usize,
    random: &mut Rng,
) -> Vec<u8> {
    let mut input = pick(corpus, random).to_vec();
    for _ in 0..1 << random.u32(0..4) {
        step(&mut input, corpus, dictionary, random);
    }
    input.truncate(bytes_max);
    input
}

fn pick<'c>(corpus: &'c [Vec<u8>], random: &mut Rng) -> &'c [u8] {
    match corpus.len() {
        0 => &[],
        count => &corpus[random.usize(..count)],
    }
}

/// A stretch of some bytes, short ones more often.
fn stretch(length: usize, random: &mut Rng) -> std::ops::Range<usize> {
    if length == 0 {
        return 0..0;
    }
    let start = random.usize(..length);
    let most = (length - start).min(1 << random.u32(0..10));
    start..start + random.usize(1..=most)
}

fn step(input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&[u8]], random: &mut Rng) {
    let at = random.usize(..=input.len());
    match random.u32(..12) {
        // A bit, a byte, a byte by one.
        0 if at < input.len() => input[at] ^= 1 << random.u32(..8),
        1 if at < input.len() => input[at] = random.u8(..),
        2 if at < input.len() => {
            let by = random.u8(1..9);
            input[at] = if random.bool() {
                input[at].wrapping_add(by)
            } else {
                input[at].wrapping_sub(by)
            };
        }
        // Less, more, the same again.
        3 => drop(input.drain(stretch(input.len(), random))),
        4 => {
            let again = input[stretch(input.len(), random)].to_vec();
            input.splice(at..at, again);
        }
        5 => {
            let count = random.usize(1..=16);
            let byte = match random.u32(..4) {
                0 => 0,
                1 => 0xff,
                2 => b' ',
                _ => random.u8(..),
            };
            input.splice(at..at, std::iter::repeat_n(byte, count));
        }
        // Words.
        6 | 7 if !dictionary.is_empty() => {
            let word = dictionary[random.usize(..dictionary.len())];
            let end = if random.bool() {
                at
            } else {
                (at + word.len()).min(input.len())
            };
            input.splice(at..end, word.iter().copied());
        }
        // Another input's piece, or its end.
        8 => {
            let other = pick(corpus, random);
            let piece = &other[stretch(other.len(), random)];
            input.splice(at..at, piece.iter().copied());
        }
        9 => {
            let other = pick(corpus, random);
            let from = random.usize(..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        // Numbers: lengths and edges, in either order of bytes.
        10 => {
            let value = number(input.len(), random);
            let width = 1 << random.u32(..4);
            let bytes = if random.bool() {
                value.to_be_bytes()[8 - width..].to_vec()
            } else {
                value.to_le_bytes()[..width].to_vec()
            };
            let end = (at + width).min(input.len());
            input.splice(at..end, bytes);
        }
        _ => input.truncate(at),
    }
}

fn number(length: usize, random: &mut Rng) -> u64 {
    match random.u32(..6) {
        0 => length as u64,
        1 => random.u64(..=length as u64),
        2 => 1 << random.u32(..64),
        3 => (1_u64 << random.u32(..64)).wrapping_sub(1),
        4 => u64::MAX - random.u64(..4),
        _ => random.u64(..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_one_seed_are_the_same_and_within_the_limit() {
        let corpus = vec![b"one".to_vec(), vec![7; 40]];
        let all = |seed| {
            let mut random = Rng::with_seed(seed);
            let made = (0..500).map(|_| mutate(&corpus, &[b"word"], 50, &mut random));
            made.collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert!(all(1).iter().all(|input| input.len() <= 50));
        assert!(all(1).iter().any(|input| input.len() == 50));
    }

    #[test]
    fn inputs_are_made_out_of_nothing_too() {
        let mut random = Rng::with_seed(3);
        let made: Vec<_> = (0..200)
            .map(|_| mutate(&[], &[], 50, &mut random))
            .collect();
        assert!(made.iter().any(|input| !input.is_empty()));
    }
}
