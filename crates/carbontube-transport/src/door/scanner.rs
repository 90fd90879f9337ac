//! Finds whole messages in a byte stream and checks every length before it counts.

use crate::Options;

use super::zmtp::{FLAG_COMMAND, FLAG_LONG, FLAG_MORE};

/// The longest command taken after the handshake.
const COMMAND_BYTES_MAX: usize = super::zmtp::COMMAND_BYTES_MAX;

/// How a peer broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A declared length or number is over the limits.
    Oversized,
    /// The bytes are no ZMTP frames.
    Malformed,
}

/// What the scanner has found, in the order of the stream.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A whole message.
    Message(&'a [u8]),
    /// The payload of a command.
    Command(&'a [u8]),
}

/// Finds message boundaries; keeps its place between calls.
///
/// The buffer is compacted in place: commands are cut out, so that the bytes up
/// to [`complete`](Self::complete) are whole messages and nothing else.
#[derive(Debug)]
pub(crate) struct Scanner {
    frame_bytes_max: usize,
    message_bytes_max: usize,
    message_frames_max: usize,
    /// End of the last whole message in the buffer.
    complete: usize,
    /// End of the last whole frame in the buffer, at or after `complete`.
    scanned: usize,
    /// Frames of the unfinished message.
    frames: usize,
    /// Bytes still missing for the frame at `scanned`, when its header is known.
    missing: usize,
}

impl Scanner {
    /// A scanner of what peers send.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            frame_bytes_max: options.frame_bytes_max,
            message_bytes_max: options.message_bytes_max,
            message_frames_max: options.message_frames_max,
            complete: 0,
            scanned: 0,
            frames: 0,
            missing: 0,
        }
    }

    /// The end of the last whole message.
    pub(crate) fn complete(&self) -> usize {
        self.complete
    }

    /// Bytes known to be missing for the current frame.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// Scans what was appended to `buffer` since the last call.
    ///
    /// `found` gets each whole message and each command in turn.
    pub(crate) fn scan(
        &mut self,
        buffer: &mut Vec<u8>,
        mut found: impl FnMut(Found<'_>),
    ) -> Result<(), Violation> {
        // `read` runs ahead of `scanned` by the bytes of commands cut out so far.
        let mut read = self.scanned;
        let result = loop {
            let (flags, header, length) = match parse_header(&buffer[read..]) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => {
                    self.missing = 0;
                    break Ok(());
                }
                Err(violation) => break Err(violation),
            };
            let is_command = flags & FLAG_COMMAND != 0;
            if let Err(violation) = self.check(is_command, length, header) {
                break Err(violation);
            }
            // Within `frame_bytes_max`, so neither the cast nor the sum can overflow.
            let whole = header + length as usize;
            let available = buffer.len() - read;
            if available < whole {
                self.missing = whole - available;
                break Ok(());
            }
            if is_command {
                found(Found::Command(&buffer[read + header..read + whole]));
                read += whole;
                continue;
            }
            if read != self.scanned {
                buffer.copy_within(read..read + whole, self.scanned);
            }
            read += whole;
            self.scanned += whole;
            self.frames += 1;
            if flags & FLAG_MORE == 0 {
                found(Found::Message(&buffer[self.complete..self.scanned]));
                self.complete = self.scanned;
                self.frames = 0;
            }
        };
        if read != self.scanned {
            buffer.copy_within(read.., self.scanned);
            buffer.truncate(buffer.len() - (read - self.scanned));
        }
        result
    }

    /// Tells that the first `bytes` of the buffer, whole messages, were removed.
    pub(crate) fn removed(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.complete);
        self.complete -= bytes;
        self.scanned -= bytes;
    }

    fn check(&self, is_command: bool, length: u64, header: usize) -> Result<(), Violation> {
        if is_command {
            return if length > COMMAND_BYTES_MAX as u64 {
                Err(Violation::Oversized)
            } else {
                Ok(())
            };
        }
        let message_so_far = self.scanned - self.complete;
        let over = length > self.frame_bytes_max as u64
            || message_so_far as u64 + header as u64 + length > self.message_bytes_max as u64
            || self.frames >= self.message_frames_max;
        if over {
            Err(Violation::Oversized)
        } else {
            Ok(())
        }
    }
}

/// Reads flags, header size and payload length; `None` when more bytes are needed.
fn parse_header(bytes: &[u8]) -> Result<Option<(u8, usize, u64)>, Violation> {
    let Some(&flags) = bytes.first() else {
        return Ok(None);
    };
    let known = FLAG_MORE | FLAG_LONG | FLAG_COMMAND;
    if flags & !known != 0 || flags & (FLAG_COMMAND | FLAG_MORE) == FLAG_COMMAND | FLAG_MORE {
        return Err(Violation::Malformed);
    }
    let rest = &bytes[1..];
    if flags & FLAG_LONG == 0 {
        return Ok(rest.first().map(|&length| (flags, 2, u64::from(length))));
    }
    let Some(length) = rest.first_chunk::<8>() else {
        return Ok(None);
    };
    let length = u64::from_be_bytes(*length);
    if length > i64::MAX as u64 {
        return Err(Violation::Oversized);
    }
    Ok(Some((flags, 9, length)))
}

/// The first frame's payload of a whole, checked message.
pub(crate) fn first_frame(message: &[u8]) -> &[u8] {
    match parse_header(message) {
        Ok(Some((_, header, length))) => message
            .get(header..)
            .and_then(|body| body.get(..usize::try_from(length).ok()?))
            .unwrap_or_default(),
        _ => &[],
    }
}

/// Whether a whole, checked message is a single frame.
pub(crate) fn is_single_frame(message: &[u8]) -> bool {
    message.first().is_some_and(|flags| flags & FLAG_MORE == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::zmtp;

    fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if body.len() > 255 {
            bytes.push(flags | FLAG_LONG);
            bytes.extend((body.len() as u64).to_be_bytes());
        } else {
            bytes.extend([flags, u8::try_from(body.len()).unwrap()]);
        }
        bytes.extend(body);
        bytes
    }

    #[test]
    fn stream_fed_in_any_pieces_gives_the_same_messages_and_commands() {
        let ping = zmtp::command("PING", b"\0\0x");
        let long = vec![7; 300];
        let mut stream = Vec::new();
        stream.extend(frame(0, b"one"));
        stream.extend(&ping);
        stream.extend(frame(FLAG_MORE, b"two"));
        stream.extend(&ping);
        stream.extend(frame(0, &long));
        stream.extend(frame(0, b""));
        let mut clean = frame(0, b"one");
        clean.extend(frame(FLAG_MORE, b"two"));
        clean.extend(frame(0, &long));
        clean.extend(frame(0, b""));
        for piece in 1..stream.len() {
            let mut scanner = Scanner::new(&Options::default());
            let (mut buffer, mut messages, mut commands) = (Vec::new(), Vec::new(), 0);
            for chunk in stream.chunks(piece) {
                buffer.extend(chunk);
                scanner
                    .scan(&mut buffer, |found| match found {
                        Found::Message(message) => messages.push(message.to_vec()),
                        Found::Command(_) => commands += 1,
                    })
                    .unwrap();
            }
            assert_eq!(buffer, clean, "piece {piece}");
            assert_eq!(scanner.complete(), clean.len());
            assert_eq!((messages.len(), commands), (3, 2));
            assert_eq!(first_frame(&messages[1]), b"two");
        }
    }

    #[test]
    fn length_over_any_limit_is_oversized_before_its_bytes_arrive() {
        let options = Options {
            frame_bytes_max: 100,
            message_bytes_max: 150,
            message_frames_max: 3,
            ..Options::default()
        };
        let check = |bytes: &[u8]| Scanner::new(&options).scan(&mut bytes.to_vec(), |_| ());
        let declared = |flags: u8, length: u64| {
            let mut bytes = vec![flags | FLAG_LONG];
            bytes.extend(length.to_be_bytes());
            bytes
        };
        for length in [101, 1 << 36, 1 << 62, u64::MAX] {
            assert_eq!(check(&declared(0, length)), Err(Violation::Oversized));
            assert_eq!(
                check(&declared(
                    FLAG_COMMAND,
                    length + 5000 * u64::from(length < 5000)
                )),
                Err(Violation::Oversized)
            );
        }
        let mut two = frame(FLAG_MORE, &[0; 100]);
        two.extend([0, 100]);
        assert_eq!(check(&two), Err(Violation::Oversized));
        let many: Vec<u8> = (0..4).flat_map(|_| frame(FLAG_MORE, b"")).collect();
        assert_eq!(check(&many), Err(Violation::Oversized));
    }

    #[test]
    fn unknown_flags_are_malformed() {
        for flags in (0_u8..=255).filter(|flags| flags & 0xf8 != 0 || flags & 5 == 5) {
            let result = Scanner::new(&Options::default()).scan(&mut vec![flags], |_| ());
            assert_eq!(result, Err(Violation::Malformed), "flags {flags}");
        }
    }
}
