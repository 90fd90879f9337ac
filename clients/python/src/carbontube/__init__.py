"""The Python client of Carbontube."""

from .client import PipelineClient
from .errors import CarbontubeError, ConnectError, NotConfirmed, ProtocolError, Refused

__all__ = [
    "CarbontubeError",
    "ConnectError",
    "NotConfirmed",
    "PipelineClient",
    "ProtocolError",
    "Refused",
]
