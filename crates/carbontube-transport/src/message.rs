//! A message: one or more frames that travel together.

use bytes::Bytes;

/// One multipart ZeroMQ message.
pub type Message = Vec<Bytes>;

/// Below this size a received message is moved out of the shared read buffer.
const DETACH_BYTES_MAX: usize = 32 << 10;

/// The size of a message on the wire, frame headers included.
pub(crate) fn wire_bytes(message: &[Bytes]) -> usize {
    message
        .iter()
        .map(|frame| frame.len() + if frame.len() > 255 { 9 } else { 2 })
        .sum()
}

/// Copies a small message into one buffer of its own.
///
/// Received frames share the buffer they were read into, so that one kept frame
/// would pin up to 64 KiB. After this, a kept frame pins its own message at most.
pub(crate) fn detach(message: Message) -> Message {
    let total: usize = message.iter().map(Bytes::len).sum();
    if total > DETACH_BYTES_MAX {
        return message;
    }
    if let [frame] = message.as_slice() {
        return vec![Bytes::copy_from_slice(frame)];
    }
    let mut buffer = Vec::with_capacity(total);
    for frame in &message {
        buffer.extend_from_slice(frame);
    }
    let mut rest = Bytes::from(buffer);
    message
        .iter()
        .map(|frame| rest.split_to(frame.len()))
        .collect()
}

/// Takes the empty delimiter that a REQ peer puts first; tells whether there was one.
///
/// A reply to such a peer must carry the delimiter again: see [`add_delimiter`].
pub fn take_delimiter(message: &mut Message) -> bool {
    let found = message.len() > 1 && message[0].is_empty();
    if found {
        message.remove(0);
    }
    found
}

/// Puts an empty delimiter first, as a REQ peer expects it.
pub fn add_delimiter(message: &mut Message) {
    message.insert(0, Bytes::new());
}
