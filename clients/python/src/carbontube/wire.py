"""Messages to frames and back: docs/protocol.md, sections 3 and 4, in JSON."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any, Dict, List, Sequence, Tuple

from .errors import ProtocolError

_SIGNATURE = b"CTB"
_VERSION = 1

Json = Dict[str, Any]


def encode(kind: str, body: Json, payloads: Sequence[bytes] = ()) -> List[bytes]:
    """The frames of a message: header, body, and a frame for each payload."""
    header = _SIGNATURE + bytes([_VERSION]) + kind.encode("ascii") + b"J"
    return [header, dump(body), *payloads]


def decode(frames: Sequence[bytes]) -> Tuple[str, Json, List[bytes]]:
    """The kind, the body and the payloads of a message."""
    if len(frames) < 2 or frames[0][:3] != _SIGNATURE:
        raise ProtocolError("not a Carbontube message")
    header = frames[0]
    if header[3:4] != bytes([_VERSION]):
        raise ProtocolError(
            f"the manager speaks protocol version {header[3:4].hex()}, "
            f"this client speaks {_VERSION}"
        )
    if len(header) != 6 or header[5:6] != b"J":
        raise ProtocolError(f"expected a message in JSON, its header is {header!r}")
    try:
        body = json.loads(frames[1])
    except ValueError as error:
        raise ProtocolError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError("the body is not a JSON object")
    return chr(header[4]), body, list(frames[2:])


def dump(value: Any) -> bytes:
    """JSON in bytes. NaN and infinities are no JSON, and are refused."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def new_id() -> str:
    """A fresh UUID of version 7 (RFC 9562), which sorts by time of creation."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
