"""A manager that does what a test tells it to, on a thread of its own."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Optional

import zmq

from carbontube import wire

INFO = {"pipeline": "video", "phases": ["encode-video"], "version": "0.1.0"}

Answer = List[bytes]
Script = Callable[[str, Dict[str, Any], List[bytes]], List[Answer]]


class Scripted:
    """Answers the greeting by itself, and everything else by its script."""

    def __init__(self, script: Script, address: str = "tcp://127.0.0.1:*") -> None:
        self.script = script
        self.seen: List[Any] = []
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(address)
        self.address: str = self._socket.last_endpoint.decode()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(10):
                continue
            peer, *frames = self._socket.recv_multipart()
            kind, body, payloads = wire.decode(frames)
            if kind == "Q" and body["query"] == "info":
                answers = [wire.encode("q", answer(body, {"info": INFO}))]
            else:
                self.seen.append((kind, body, payloads))
                answers = self.script(kind, body, payloads)
            for frames in answers:
                self._socket.send_multipart([peer, *frames])
        self._socket.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.term()


def answer(request: Dict[str, Any], value: Any) -> Dict[str, Any]:
    return {"request": request["request"], "answer": value}


def outcome(request: Dict[str, Any], *outcomes: Any) -> Answer:
    return wire.encode("e", {"request": request["request"], "outcomes": list(outcomes)})


def accepted(request: Dict[str, Any]) -> Answer:
    return outcome(request, *({"accepted": {"id": job["id"]}} for job in request["jobs"]))


def refusal(request: Optional[Dict[str, Any]], code: str) -> Answer:
    number = None if request is None else request["request"]
    return wire.encode("r", {"request": number, "code": code, "message": f"refused: {code}"})
