"""The example worker against a manager in pyzmq that does what a test tells it to."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from carbontube import wire

WORKER = Path(__file__).parents[3] / "examples/python-worker/worker.py"
MANAGER = "22222222-2222-2222-2222-222222222222"
PATIENCE = 30_000


class Desk:
    """A manager's sockets, and the worker that connects to them."""

    def __init__(self):
        self.context = zmq.Context()
        self.pull = self.context.socket(zmq.PULL)
        self.sub = self.context.socket(zmq.SUB)
        self.sub.subscribe(b"available")
        ports = [each.bind_to_random_port("tcp://127.0.0.1") for each in (self.pull, self.sub)]
        addresses = [f"tcp://127.0.0.1:{port}" for port in ports]
        self.process = subprocess.Popen([sys.executable, WORKER, "greet", *addresses])
        self.head = {"manager": MANAGER, "epoch": 1, "sequence": 0}
        first = self.heartbeat(lambda beat: True)
        self.worker = first["worker"]
        self.push = self.context.socket(zmq.PUSH)
        self.push.connect(first["address"])

    def say(self, kind, body, payloads=()):
        self.head["sequence"] += 1
        self.push.send_multipart(wire.encode(kind, {"head": self.head, **body}, payloads))

    def dispatch(self, *attempts, **instructions):
        jobs = [
            {"attempt": each, "job": f"job-{each}", "phase": 0, "job_type": "greet", "number": 1}
            for each in attempts
        ]
        payload = json.dumps({"name": "Ada", **instructions}).encode()
        self.say("D", {"pipeline": "p", "jobs": jobs}, [payload] * len(jobs))

    def hear(self, kind):
        """The next message on PULL, which must be of this kind."""
        assert self.pull.poll(PATIENCE), f"no {kind} message"
        found, body, payloads = wire.decode(self.pull.recv_multipart())
        assert (found, body["worker"]) == (kind, self.worker)
        return body, payloads

    def heartbeat(self, wanted):
        """The next heartbeat that is as wanted."""
        deadline = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < deadline:
            assert self.sub.poll(PATIENCE), "no heartbeat"
            topic, *frames = self.sub.recv_multipart()
            kind, beat, _ = wire.decode(frames)
            assert (topic, kind) == (b"available", "V")
            if wanted(beat):
                return beat
        raise AssertionError(f"no heartbeat as wanted, the last is {beat}")

    def held(self, states):
        """Waits for a heartbeat that names these attempts in these states."""

        def wanted(beat):
            held = beat["managers"][0]["held"] if beat["managers"] else []
            return {each["attempt"]: each["state"] for each in held} == states

        return self.heartbeat(wanted)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.context.destroy(linger=0)


@pytest.fixture
def desk():
    made = Desk()
    yield made
    made.close()


def test_a_result_is_held_and_repeated_until_it_is_acknowledged(desk):
    desk.say("H", {"pipeline": "p", "worker_timeout_ms": 5000})
    desk.dispatch("1-1")
    body, [payload] = desk.hear("S")
    [result] = body["results"]
    assert result == {"attempt": "1-1", "job": "job-1-1", "phase": 0, "outcome": "success"}
    assert json.loads(payload)["greeting"] == "hello, Ada"
    beat = desk.held({"1-1": "done"})
    assert beat["managers"][0]["sequence"] == desk.head["sequence"]
    # A Hello of a restarted manager brings the result again, at once.
    desk.head.update(epoch=2, sequence=0)
    desk.say("H", {"pipeline": "p", "worker_timeout_ms": 5000})
    again, _ = desk.hear("S")
    assert again["results"] == body["results"]
    assert desk.held({"1-1": "done"})["managers"][0]["epoch"] == 2
    desk.say("K", {"route": 0, "attempts": ["1-1"]})
    desk.held({})


def test_an_attempt_that_comes_twice_runs_once(desk):
    desk.dispatch("1-1", seconds=0.3)
    desk.dispatch("1-1", seconds=0.3)
    assert len(desk.hear("S")[0]["results"]) == 1
    desk.say("K", {"route": 0, "attempts": ["1-1"]})
    desk.held({})


def test_an_exception_is_reported_with_its_traceback(desk):
    desk.dispatch("1-1", name=None, seconds="no number")
    body, [payload] = desk.hear("S")
    failure = body["results"][0]["outcome"]["failure"]
    assert (failure["kind"], failure["retry"], payload) == ("error", True, b"")
    assert failure["error"]["message"].startswith("TypeError")
    assert "execute" in failure["error"]["detail"]


def test_only_what_has_not_started_is_handed_back(desk):
    attempts = ["1-1", "1-2", "1-3", "1-4"]
    desk.dispatch(*attempts, seconds=4)
    desk.held({"1-1": "running", "1-2": "running", "1-3": "queued", "1-4": "queued"})
    desk.say("Y", {"attempts": ["1-1", "1-4", "1-9"]})
    body, _ = desk.hear("B")
    assert body["reason"] == "recalled"
    assert body["attempts"] == [{"attempt": "1-4", "job": "job-1-4", "phase": 0}]
    desk.say("N", {})
    body, _ = desk.hear("B")
    assert [each["attempt"] for each in body["attempts"]] == ["1-3"]
    assert desk.heartbeat(lambda beat: beat["state"] == "draining")
    done = []
    while len(done) < 2:
        done += [each["attempt"] for each in desk.hear("S")[0]["results"]]
    desk.say("K", {"route": 0, "attempts": done})
    desk.hear("L")
    assert desk.process.wait(timeout=PATIENCE / 1000) == 0
