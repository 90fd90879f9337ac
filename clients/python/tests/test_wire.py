"""Frames, against the vectors that the Rust side reads and writes."""

import re
import uuid
from pathlib import Path

import pytest

from carbontube import ProtocolError, wire

GOLDEN = (
    Path(__file__).parents[3] / "crates/carbontube-protocol/tests/golden/json.txt"
)


def vectors():
    """Name, frames: a name stands at the start of a line, its frames are indented."""
    name, lines = None, []
    for line in GOLDEN.read_text().splitlines():
        if line.startswith("  "):
            lines.append(line[2:])
        elif line.strip():
            if name:
                yield name, lines
            name, lines = line, []
    if name:
        yield name, lines


def frames(lines):
    header, body, *payloads = lines
    return [bytes.fromhex(header), body.encode(), *(line.encode() for line in payloads)]


def test_every_kind_is_read_and_written_as_in_the_golden_vectors():
    names = []
    for name, lines in vectors():
        if len(bytes.fromhex(lines[0])) != 6:
            continue
        expected = frames(lines)
        kind, body, payloads = wire.decode(expected)
        assert wire.encode(kind, body, payloads) == expected, name
        names.append(name)
    assert {"Enqueue", "Enqueued", "Query", "Answer", "Wait", "Ended", "Refusal"} <= set(names)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([], "not a Carbontube message"),
        ([b"CTB\x01eJ"], "not a Carbontube message"),
        ([b"HTTP/1", b"{}"], "not a Carbontube message"),
        ([b"CTB\x09eJ", b"{}"], "version 09"),
        ([b"CTB\x01eB", b"{}"], "in JSON"),
        ([b"CTB\x01e", b"{}"], "in JSON"),
        ([b"CTB\x01eJ", b"{"], "not JSON"),
        ([b"CTB\x01eJ", b"[]"], "not a JSON object"),
    ],
)
def test_other_frames_are_errors(bad, reason):
    with pytest.raises(ProtocolError, match=re.escape(reason)):
        wire.decode(bad)


def test_ids_are_uuids_of_version_7_and_differ():
    ids = [wire.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for text in ids:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert str(parsed) == text


def test_numbers_that_are_no_json_are_refused():
    with pytest.raises(ValueError):
        wire.dump({"x": float("nan")})
