//! Just enough ZMTP 3.0 to meet peers: greeting, READY, ERROR, PING and PONG.

use std::fmt;

/// Greeting length on the wire.
pub(crate) const GREETING_BYTES: usize = 64;

/// The largest handshake command read from a peer; metadata is small.
pub(crate) const COMMAND_BYTES_MAX: usize = 4096;

/// The longest PING context that ZMTP allows.
const PING_CONTEXT_BYTES_MAX: usize = 16;

pub(crate) const FLAG_MORE: u8 = 1;
pub(crate) const FLAG_LONG: u8 = 2;
pub(crate) const FLAG_COMMAND: u8 = 4;

/// What one of our sockets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pull,
    Push,
    Publish,
    Subscribe,
    Router,
    Dealer,
}

impl Kind {
    /// The name in the READY that peers get from us.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "PULL",
            Self::Push => "PUSH",
            Self::Publish => "PUB",
            Self::Subscribe => "SUB",
            Self::Router => "ROUTER",
            Self::Dealer => "DEALER",
        }
    }

    /// The crate socket that carries one connection of this kind inside the process.
    pub(crate) fn carrier(self) -> Carrier {
        match self {
            Self::Push | Self::Publish => Carrier::Push,
            Self::Pull | Self::Subscribe => Carrier::Pull,
            Self::Router | Self::Dealer => Carrier::Dealer,
        }
    }

    /// Whether ZMTP lets this socket talk to a peer of that type.
    pub(crate) fn fits(self, peer: &str) -> bool {
        match self {
            Self::Pull => peer == "PUSH",
            Self::Push => peer == "PULL",
            Self::Publish => matches!(peer, "SUB" | "XSUB"),
            Self::Subscribe => matches!(peer, "PUB" | "XPUB"),
            Self::Router => matches!(peer, "REQ" | "DEALER" | "ROUTER"),
            Self::Dealer => matches!(peer, "REP" | "DEALER" | "ROUTER"),
        }
    }
}

/// What a crate socket is on the private side of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Push,
    Pull,
    Dealer,
}

impl Carrier {
    /// The name under which the front door meets that socket.
    pub(crate) fn counterpart(self) -> &'static str {
        match self {
            Self::Push => "PULL",
            Self::Pull => "PUSH",
            Self::Dealer => "ROUTER",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Our greeting: version 3.0, NULL security.
pub(crate) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

/// Checks as much of a peer's greeting as has arrived.
pub(crate) fn check_greeting(so_far: &[u8]) -> Result<(), String> {
    let at = |index: usize| so_far.get(index).copied();
    if at(0).is_some_and(|byte| byte != 0xff) || at(9).is_some_and(|byte| byte & 1 != 1) {
        return Err("the greeting is not ZMTP".to_owned());
    }
    if let Some(major) = at(10).filter(|&major| major < 3) {
        return Err(format!("ZMTP version {major}, expected 3 or later"));
    }
    if let Some(mechanism) = so_far.get(12..32)
        && mechanism
            .strip_prefix(b"NULL")
            .is_none_or(|pad| pad.iter().any(|&byte| byte != 0))
    {
        let name: Vec<u8> = mechanism
            .iter()
            .copied()
            .take_while(|&byte| byte != 0)
            .collect();
        let name = name.escape_ascii();
        return Err(format!("security mechanism {name}, expected NULL"));
    }
    Ok(())
}

/// A command frame: header, name, body.
pub(crate) fn command(name: &str, body: &[u8]) -> Vec<u8> {
    let length = 1 + name.len() + body.len();
    let mut bytes = Vec::with_capacity(9 + length);
    match u8::try_from(length) {
        Ok(short) => bytes.extend([FLAG_COMMAND, short]),
        Err(_) => {
            bytes.push(FLAG_COMMAND | FLAG_LONG);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.push(u8::try_from(name.len()).expect("command names are ours and short"));
    bytes.extend(name.as_bytes());
    bytes.extend(body);
    bytes
}

/// A READY command.
pub(crate) fn ready(socket_type: &str) -> Vec<u8> {
    const PROPERTY: &str = "Socket-Type";
    let mut body = vec![u8::try_from(PROPERTY.len()).expect("the property's name is short")];
    body.extend(PROPERTY.as_bytes());
    let length = u32::try_from(socket_type.len()).expect("socket types are ours and short");
    body.extend(length.to_be_bytes());
    body.extend(socket_type.as_bytes());
    command("READY", &body)
}

/// A subscription to a topic, as a message: the form that ZMTP 3.0 and 3.1 peers both take.
pub(crate) fn subscription(topic: &[u8]) -> Vec<u8> {
    let length = 1 + topic.len();
    let mut bytes = Vec::with_capacity(9 + length);
    match u8::try_from(length) {
        Ok(short) => bytes.extend([0, short]),
        Err(_) => {
            bytes.push(FLAG_LONG);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.push(1);
    bytes.extend(topic);
    bytes
}

/// An ERROR command.
pub(crate) fn error(reason: &str) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(255)];
    let mut body = vec![u8::try_from(reason.len()).expect("cut to 255 above")];
    body.extend(reason);
    command("ERROR", &body)
}

/// Splits a command's payload into its name and body.
pub(crate) fn split_command(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = payload.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// The PONG that answers the body of a PING; `None` when the PING is malformed.
pub(crate) fn pong(ping_body: &[u8]) -> Option<Vec<u8>> {
    let context = ping_body.get(2..)?;
    (context.len() <= PING_CONTEXT_BYTES_MAX).then(|| command("PONG", context))
}

/// Reads the socket type out of a handshake command's payload.
pub(crate) fn read_ready(payload: &[u8]) -> Result<String, String> {
    let (name, body) = split_command(payload).ok_or("the first command is malformed")?;
    if name == b"ERROR" {
        let reason = body.get(1..).unwrap_or_default().escape_ascii();
        return Err(format!("the peer refused: {reason}"));
    }
    if name != b"READY" {
        let name = name.escape_ascii();
        return Err(format!("the first command is {name}, expected READY"));
    }
    let mut rest = body;
    while !rest.is_empty() {
        let (key, value, tail) = split_property(rest).ok_or("the READY metadata is malformed")?;
        if key.eq_ignore_ascii_case(b"Socket-Type") {
            return Ok(value.escape_ascii().to_string());
        }
        rest = tail;
    }
    Err("READY names no socket type".to_owned())
}

fn split_property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = split_command(bytes)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (value, tail) = rest.split_at_checked(length)?;
    Some((key, value, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_read_back_names_its_socket_type() {
        let bytes = ready("DEALER");
        assert_eq!(bytes[0], FLAG_COMMAND);
        assert_eq!(usize::from(bytes[1]), bytes.len() - 2);
        assert_eq!(read_ready(&bytes[2..]), Ok("DEALER".to_owned()));
    }

    #[test]
    fn ready_truncated_anywhere_is_an_error() {
        let bytes = ready("DEALER");
        for cut in 2..bytes.len() {
            assert!(read_ready(&bytes[2..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn greeting_of_ours_passes_and_others_say_why_not() {
        let ours = greeting();
        for cut in 0..=ours.len() {
            assert_eq!(check_greeting(&ours[..cut]), Ok(()));
        }
        let mut old = ours;
        old[10] = 1;
        assert_eq!(
            check_greeting(&old).unwrap_err(),
            "ZMTP version 1, expected 3 or later"
        );
        let mut plain = ours;
        plain[12..17].copy_from_slice(b"PLAIN");
        assert_eq!(
            check_greeting(&plain).unwrap_err(),
            "security mechanism PLAIN, expected NULL"
        );
        assert!(check_greeting(b"GET / HTTP/1.1").is_err());
    }

    #[test]
    fn pong_repeats_the_context_of_a_ping() {
        assert_eq!(pong(b"\0\x0aabc"), Some(command("PONG", b"abc")));
        assert_eq!(pong(b"\0"), None);
        assert_eq!(pong(&[0; 19]), None);
    }
}
