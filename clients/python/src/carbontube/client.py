"""A client of one manager, on its api or its pull address."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from types import TracebackType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from . import wire
from .errors import ConnectError, NotConfirmed, ProtocolError, Refused
from .wire import Json

T = TypeVar("T")

# Refusals that pass by themselves, so that the request is sent again.
_PASSING = ("busy", "journal", "draining")
# Without an answer for this long, a request is sent again on the same connection.
_AGAIN_SECONDS = 5.0
# A connection that is cut without a word is found out, as the Rust client does: by
# probes where nothing is under way, and by what nobody acknowledges.
_KEEPALIVE = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 10),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    (zmq.TCP_MAXRT, 20_000),
)


class PipelineClient:
    """Enqueues jobs at a manager, and waits for their results.

    With an **api address** (``--api-bind``, by default port 5051) everything is
    confirmed: ``enqueue_job`` returns when the job is in the manager's durable journal.
    With a **pull address** (``--pull-bind``, 5050) jobs are only handed over.
    The client finds out by itself which of the two an address is.

    A client is for one thread, as ZeroMQ sockets are.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 30.0,
        context: Optional["zmq.Context[zmq.Socket[bytes]]"] = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.info: Optional[Json] = None
        self._context = context if context is not None else zmq.Context.instance()
        self._socket: Optional["zmq.Socket[bytes]"] = None
        self._monitor: Optional["zmq.Socket[bytes]"] = None
        self._confirmed = False
        self._requests = itertools.count(1)

    # ---- connecting

    def connect(self) -> "PipelineClient":
        """Connects, and waits until a manager answers.

        Raises ``ConnectError`` when none does within the timeout.
        """
        if self._socket is not None:
            return self
        deadline = time.monotonic() + self.timeout
        found = self._meet(deadline)
        if found is None:
            raise ConnectError(
                f"no manager at {self.address} within {self.timeout:g} s: "
                "give its api address (--api-bind) or its pull address (--pull-bind)"
            )
        self._socket, self._monitor = found
        self._confirmed = self._socket.type == zmq.DEALER
        if self._confirmed:
            try:
                self.info = self.query("info", timeout=deadline - time.monotonic())
            except NotConfirmed as error:
                self.close()
                raise ConnectError(f"{self.address} is connected, but does not answer") from error
            except Exception:
                self.close()
                raise
        return self

    def _meet(
        self, deadline: float
    ) -> Optional[Tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]]:
        """Dials as DEALER and as PUSH: the handshake of one of them succeeds."""
        dialled = []
        poller = zmq.Poller()
        for kind in (zmq.DEALER, zmq.PUSH):
            socket = self._context.socket(kind)
            socket.linger = 0
            socket.reconnect_ivl = 100
            socket.reconnect_ivl_max = 1000
            # What is sent goes to a finished connection, not to one that may be refused.
            socket.immediate = True
            socket.set(zmq.HANDSHAKE_IVL, 5000)
            for option, value in _KEEPALIVE:
                socket.set(option, value)
            events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            monitor = socket.get_monitor_socket(events)
            dialled.append((socket, monitor))
            poller.register(monitor, zmq.POLLIN)
        winner = None
        try:
            for socket, _ in dialled:
                try:
                    socket.connect(self.address)
                except zmq.ZMQError as error:
                    raise ConnectError(
                        f"{self.address!r} is not an address: "
                        "write tcp://HOST:PORT or ipc://PATH"
                    ) from error
            while winner is None:
                left = deadline - time.monotonic()
                ready = dict(poller.poll(_milliseconds(left)))
                if not ready:
                    return None
                for pair in dialled:
                    if pair[1] not in ready:
                        continue
                    event = recv_monitor_message(pair[1])
                    if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                        winner = pair
            return winner
        finally:
            for pair in dialled:
                if pair is not winner:
                    pair[0].disable_monitor()
                    pair[0].close()

    def close(self, linger: Optional[float] = None) -> None:
        """Closes the connection; jobs handed over to a pull address are written first,
        for at most ``linger`` seconds (by default the client's timeout)."""
        if self._socket is None:
            return
        seconds = self.timeout if linger is None else linger
        self._socket.disable_monitor()
        self._socket.close(linger=0 if self._confirmed else int(seconds * 1000))
        self._socket = self._monitor = None

    def __enter__(self) -> "PipelineClient":
        return self.connect()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    @property
    def confirmed(self) -> bool:
        """Whether enqueueing is confirmed: the address is an api address."""
        return self._confirmed

    # ---- jobs

    def enqueue_job(
        self,
        data: Mapping[str, Any],
        *,
        job_id: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> Tuple[bool, Json]:
        """Enqueues ``{"name": PIPELINE, "instructions": {…}}``.

        Returns ``(ok, payload)``. The payload has the job's ``id``, and ``confirmed``:
        whether the manager said that the job is in its journal. When ``ok`` is false,
        ``payload["error"]`` has a ``code`` and a ``message``; with the code
        ``not_confirmed`` the job may or may not have been accepted, and enqueueing the
        same ``job_id`` again is safe.

        ``traceparent`` is a W3C trace context for the job's phases; a pull address takes none.

        Raises ``ValueError`` when the data cannot be a job.
        """
        pipeline = data.get("name")
        instructions = data.get("instructions", {})
        if not isinstance(pipeline, str) or not pipeline:
            raise ValueError('a job needs the "name" of its pipeline')
        if not isinstance(instructions, Mapping):
            raise ValueError(
                '"instructions" are a JSON object such as {"video_path": "/tmp/video1.mp4"}, '
                f"not {type(instructions).__name__}"
            )
        identity = wire.new_id() if job_id is None else job_id
        payload: Json = {"id": identity, "pipeline": True, "instructions": dict(data)}
        try:
            frame, original = wire.dump(instructions), wire.dump(payload)
        except TypeError as error:
            raise ValueError(f"the instructions cannot be written as JSON: {error}") from error
        self._connected()
        if not self._confirmed:
            return self._hand_over(payload, original)
        job: Json = {"id": identity}
        if traceparent is not None:
            job["traceparent"] = traceparent
        body: Json = {"pipeline": pipeline, "jobs": [job]}
        payload["confirmed"] = False
        try:
            outcome = self._enqueue(body, frame)
        except Refused as error:
            payload["error"] = {"code": error.code, "message": str(error)}
            return False, payload
        except NotConfirmed as error:
            payload["error"] = {"code": "not_confirmed", "message": str(error)}
            return False, payload
        payload["confirmed"] = True
        payload["state"] = outcome.get("state", "enqueued")
        return True, payload

    def _enqueue(self, body: Json, frame: bytes) -> Json:
        """The outcome of one job, when it was accepted; tries again while the manager is busy."""

        def ask(deadline: Optional[float]) -> Json:
            answer, _ = self._ask("E", body, "e", [frame], deadline)
            return _outcome(answer)

        return _until_not_refused(ask, time.monotonic() + self.timeout)

    def _hand_over(self, payload: Json, frame: bytes) -> Tuple[bool, Json]:
        """Hands a job to a pull address, in the format of the original Carbontube."""
        socket = self._connected()
        payload["confirmed"] = False
        if not socket.poll(_milliseconds(self.timeout), zmq.POLLOUT):
            message = f"{self.address} takes no messages; the job was not sent"
            payload["error"] = {"code": "not_sent", "message": message}
            return False, payload
        socket.send(frame)
        return True, payload

    def wait(
        self,
        job_id: str,
        *,
        pipeline: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> Json:
        """Waits until a job has ended.

        Returns ``{"id", "state", "error", "result"}``; the state is ``success``,
        ``failed``, ``cancelled``, or ``None`` when no such job is known.

        Raises ``NotConfirmed`` when it has not ended within ``timeout`` seconds; without
        a timeout it waits as long as it takes.
        """
        self._needs_api("waiting")
        name = pipeline or (self.info or {}).get("pipeline")
        deadline = None if timeout is None else time.monotonic() + timeout
        body: Json = {"pipeline": name, "ids": [job_id]}

        def ask(until: Optional[float]) -> Tuple[Json, List[bytes]]:
            return self._ask("W", body, "w", [], until)

        answer, payloads = _until_not_refused(ask, deadline)
        jobs = answer.get("jobs")
        if not isinstance(jobs, list) or len(jobs) != 1 or len(payloads) != 1:
            raise ProtocolError(f"expected one job, found {answer!r}")
        job: Json = dict(jobs[0])
        job["result"] = json.loads(payloads[0]) if payloads[0] else None
        return job

    # ---- questions

    def query(self, query: Any, *, timeout: Optional[float] = None) -> Any:
        """Asks the manager, as docs/protocol.md section 5.5 has it.

        For example ``query("stats")``, ``query({"job": {"id": job_id}})`` or
        ``query({"retry": {"selector": {"ids": [job_id]}}})``. The answer to ``job`` has
        the job's instructions as well.
        """
        self._needs_api("asking")
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        body, payloads = self._ask("Q", {"query": query}, "q", [], deadline)
        answer = body.get("answer")
        if not isinstance(answer, dict) or len(answer) != 1:
            raise ProtocolError(f"expected an answer of one type, found {body!r}")
        value = next(iter(answer.values()))
        if "job" in answer and payloads and payloads[0]:
            value["instructions"] = json.loads(payloads[0])
        return value

    def stats(self) -> Json:
        """How the pipeline and its phases are."""
        stats: Json = self.query("stats")
        return stats

    # ---- the conversation

    def _connected(self) -> "zmq.Socket[bytes]":
        if self._socket is None:
            self.connect()
        if self._socket is None:
            raise ConnectError("the client is closed")
        return self._socket

    def _needs_api(self, what: str) -> None:
        self._connected()
        if not self._confirmed:
            raise ValueError(
                f"{what} needs an api address (--api-bind), {self.address} is a pull address"
            )

    def _ask(
        self,
        kind: str,
        body: Json,
        expected: str,
        payloads: Sequence[bytes],
        deadline: Optional[float],
    ) -> Tuple[Json, List[bytes]]:
        """Sends a request, again after each reconnection, until its answer comes."""
        number = next(self._requests)
        frames = wire.encode(kind, {"request": number, **body}, payloads)
        for answer_kind, answer, answer_payloads in self._answers(frames, deadline, kind):
            # A refusal of what could not be read at all has no number.
            if answer_kind == "r" and answer.get("request") in (number, None):
                raise Refused(str(answer.get("code")), str(answer.get("message")))
            # Others are late answers to requests that were given up.
            if answer_kind == expected and answer.get("request") == number:
                if expected != "w" or answer.get("jobs"):
                    return answer, answer_payloads
        raise NotConfirmed(
            f"{self.address} has not answered in time: "
            "it may or may not have been done; asking again with the same id is safe"
        )

    def _answers(
        self, frames: List[bytes], deadline: Optional[float], kind: str
    ) -> Iterator[Tuple[str, Json, List[bytes]]]:
        socket, monitor = self._connected(), self._monitor
        assert monitor is not None, "a connected client has a monitor"
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        # A wait may rightly go unanswered for as long as its job runs.
        repeat = math.inf if kind == "W" else _AGAIN_SECONDS
        unsent = True
        again = time.monotonic() + repeat
        while deadline is None or time.monotonic() < deadline:
            if unsent or time.monotonic() >= again:
                try:
                    socket.send_multipart(frames, zmq.NOBLOCK)
                    unsent = False
                    again = time.monotonic() + repeat
                except zmq.Again:
                    # There is no connection now.
                    unsent = True
            until = again if deadline is None else min(again, deadline)
            if unsent:
                until = min(until, time.monotonic() + 0.1)
            left = until - time.monotonic()
            ready: Dict[Any, int] = dict(poller.poll(_milliseconds(left)))
            if monitor in ready:
                event = recv_monitor_message(monitor)
                if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    # What was under way on the connection before is lost.
                    unsent = True
            if socket in ready:
                yield wire.decode(socket.recv_multipart())


def _until_not_refused(ask: Callable[[Optional[float]], T], deadline: Optional[float]) -> T:
    """Asks again, with growing pauses, while the refusal is one that passes by itself."""
    pause = 0.05
    while True:
        try:
            return ask(deadline)
        except Refused as error:
            late = deadline is not None and time.monotonic() + pause >= deadline
            if error.code not in _PASSING or late:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, 1.0)


def _milliseconds(seconds: float) -> int:
    """For a poll: rounded up, so that it never spins at the end."""
    return math.ceil(min(max(seconds, 0.0), 3600.0) * 1000)


def _outcome(answer: Json) -> Json:
    """What became of the one job of an ``Enqueued``."""
    outcomes = answer.get("outcomes")
    if not isinstance(outcomes, list) or len(outcomes) != 1:
        raise ProtocolError(f"expected one outcome, found {answer!r}")
    outcome = outcomes[0]
    if "rejected" in outcome:
        rejected = outcome["rejected"]
        raise Refused(str(rejected.get("code")), str(rejected.get("message")))
    for name in ("accepted", "duplicate"):
        if isinstance(outcome.get(name), dict):
            accepted: Json = outcome[name]
            return accepted
    raise ProtocolError(f"an outcome that is not known: {outcome!r}")
