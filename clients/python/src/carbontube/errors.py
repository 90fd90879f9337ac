"""What can go wrong for a client."""

from __future__ import annotations


class CarbontubeError(Exception):
    """Anything that goes wrong between a client and a manager."""


class ConnectError(CarbontubeError):
    """No manager answered at the address."""


class NotConfirmed(CarbontubeError):
    """No answer came in time: the request may or may not have been done."""


class ProtocolError(CarbontubeError):
    """A message that cannot be read, or that does not fit the question."""


class Refused(CarbontubeError):
    """The manager refused a request; ``code`` is for programs, ``str()`` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
