//! Takes an input apart into numbers and pieces; an exhausted one gives zeros.

use bytes::Bytes;

/// An input, read from its front.
#[derive(Clone, Debug)]
pub struct Draw<'a> {
    rest: &'a [u8],
}

impl<'a> Draw<'a> {
    /// Begins at the front of an input.
    pub fn new(data: &'a [u8]) -> Self {
        Draw { rest: data }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A bit of the next byte's lowest.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// One of some values.
    pub fn one<'v, T>(&mut self, values: &'v [T]) -> &'v T {
        &values[self.below(values.len())]
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number that is small more often than not, and now and then at an edge.
    pub fn number(&mut self) -> u64 {
        let byte = self.byte();
        match byte {
            0..=199 => u64::from(byte),
            200..=229 => u64::from(self.u16()),
            230..=239 => 1 << (self.byte() % 64),
            240..=247 => (1_u64 << (self.byte() % 64)).wrapping_sub(1),
            248..=251 => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A piece behind its length of two bytes, as much of it as there is.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }

    /// A piece behind its length of one byte.
    pub fn short_piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }

    /// A short text, with what is no UTF-8 replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.short_piece()).into_owned()
    }

    /// Pieces to the end of the input, `max` at most; the last one takes what is left.
    pub fn frames(&mut self, max: usize) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while !self.is_empty() {
            let piece = if frames.len() + 1 == max {
                std::mem::take(&mut self.rest)
            } else {
                self.piece()
            };
            frames.push(Bytes::copy_from_slice(piece));
        }
        frames
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

/// Puts a piece behind its length, as [`Draw::piece`] takes it.
pub fn push_piece(into: &mut Vec<u8>, piece: &[u8]) {
    let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
    into.extend(length.to_le_bytes());
    into.extend(&piece[..usize::from(length)]);
}
