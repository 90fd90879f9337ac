"""Real libzmq peers against a real manager: the ``carbontube`` binary.

Uses ``target/debug/carbontube``, or what ``CARBONTUBE_BIN`` names. Without it the tests
are skipped, or fail when ``CARBONTUBE_REQUIRE_ALL=1``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from carbontube import PipelineClient, Refused, wire

ROOT = Path(__file__).parents[3]
WORKER = ROOT / "examples/python-worker/worker.py"
DEADLINE = 60.0

FILE = """
[[pipeline]]
name = "python"
phases = ["greet"]

[phase.greet]
command = ["python3", "greet.py"]
timeout = "30s"
"""


def binary():
    path = Path(os.environ.get("CARBONTUBE_BIN", ROOT / "target/debug/carbontube"))
    if not path.exists():
        message = f"there is no {path}: build it with cargo build -p carbontube"
        if os.environ.get("CARBONTUBE_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return str(path)


def wait_until(what, attempt):
    deadline = time.monotonic() + DEADLINE
    while True:
        found = attempt()
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} within {DEADLINE:g} s"
        time.sleep(0.005)


class Manager:
    """A ``carbontube pipeline`` process on free ports, with a journal that stays."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "pipeline.toml").write_text(FILE)
        self.addresses = {}
        self.process = None
        self.start()

    def start(self):
        """Starts it; a second time at the same addresses and on the same journal."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        places = {
            name: self.addresses.get(name, ["tcp://127.0.0.1:0"])[0]
            for name in ("pull", "sub", "api", "pub")
        }
        command = [binary(), "pipeline", "pipeline.toml", "python"]
        command += [f"--{name}-bind={address}" for name, address in places.items()]
        command += ["--storage=sled:journal", f"--ready-file={ready}"]
        with open(self.folder / "manager.log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.addresses = wait_until("ready file", lambda: self.read(ready))

    def read(self, ready):
        log = (self.folder / "manager.log").read_text()
        assert self.process.poll() is None, log
        try:
            return json.loads(ready.read_text())
        except (OSError, ValueError):
            return None

    def address(self, name):
        return self.addresses[name][0]

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def manager(tmp_path):
    running = Manager(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def client(manager):
    with PipelineClient(manager.address("api")) as connected:
        assert connected.confirmed
        yield connected


@pytest.fixture
def worker(manager):
    command = [sys.executable, WORKER, "greet", manager.address("pull"), manager.address("sub")]
    process = subprocess.Popen(command)
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture
def context():
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def job(**instructions):
    return {"name": "python", "instructions": instructions}


def test_the_client_enqueues_with_confirmation(client):
    ok, payload = client.enqueue_job(job(name="Ada"))
    assert ok and payload["confirmed"], payload
    detail = client.query({"job": {"id": payload["id"]}})
    assert detail["view"]["state"] == "enqueued"
    assert detail["instructions"] == {"name": "Ada"}
    again, second = client.enqueue_job(job(name="Ada"), job_id=payload["id"])
    assert again and second["id"] == payload["id"]
    assert client.stats()["live"] == 1


def test_the_client_gives_a_job_its_trace(client):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ok, payload = client.enqueue_job(job(name="Ada"), traceparent=trace)
    assert ok, payload
    assert client.query({"job": {"id": payload["id"]}})["traceparent"] == trace


def test_the_client_is_told_why_a_job_is_refused(client):
    ok, payload = client.enqueue_job({"name": "no-such-pipeline", "instructions": {}})
    assert not ok and not payload["confirmed"]
    assert payload["error"]["code"] == "unknown_pipeline"
    with pytest.raises(Refused) as caught:
        client.query({"job": {"id": "never-seen"}})
    assert caught.value.code == "unknown_job"


def test_a_plain_push_enqueues_in_the_json_of_the_original(manager, client, context):
    push = context.socket(zmq.PUSH)
    push.connect(manager.address("pull"))
    for number in range(3):
        push.send_json({"id": f"{number:032x}", "pipeline": True, "instructions": job(number=number)})
    # The instructions may also stand un-nested.
    push.send_json({"id": "plain", "pipeline": True, "instructions": {"number": 3}})
    wait_until("four jobs", lambda: client.stats()["live"] == 4)
    for identity, number in ((f"{2:032x}", 2), ("plain", 3)):
        detail = client.query({"job": {"id": identity}})
        assert detail["instructions"] == {"number": number}


def test_the_client_hands_over_to_a_pull_address(manager, client):
    with PipelineClient(manager.address("pull")) as pushing:
        assert not pushing.confirmed
        ok, payload = pushing.enqueue_job(job(name="Grace"))
        assert ok and not payload["confirmed"]
    wait_until("the job", lambda: client.stats()["live"] == 1)
    assert client.query({"job": {"id": payload["id"]}})["instructions"] == {"name": "Grace"}


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_a_plain_socket_enqueues_with_confirmation(manager, context, kind):
    socket = context.socket(kind)
    socket.rcvtimeo = int(DEADLINE * 1000)
    socket.connect(manager.address("api"))
    for number in range(3):
        body = {"request": number, "pipeline": "python", "jobs": [{"id": f"order-{number}"}]}
        socket.send_multipart(wire.encode("E", body, [b'{"name":"Ada"}']))
        kind_byte, answer, _ = wire.decode(socket.recv_multipart())
        assert kind_byte == "e"
        outcomes = [{"accepted": {"id": f"order-{number}"}}]
        assert answer == {"request": number, "outcomes": outcomes}


def test_garbage_is_refused_and_the_manager_goes_on(manager, client, context):
    socket = context.socket(zmq.DEALER)
    socket.rcvtimeo = int(DEADLINE * 1000)
    socket.connect(manager.address("api"))
    socket.send_multipart([b"CTB\x01EJ", b"{}"])
    kind, answer, _ = wire.decode(socket.recv_multipart())
    assert (kind, answer["code"]) == ("r", "malformed")
    push = context.socket(zmq.PUSH)
    push.connect(manager.address("pull"))
    for garbage in ([b""], [b"\x00" * 100], [b"CTB\x01SJ", b"[]"], [b"a", b"b", b"c"]):
        push.send_multipart(garbage)
    assert client.enqueue_job(job(name="Ada"))[0]


def test_the_python_worker_executes_a_phase(client, worker):
    ids = [client.enqueue_job(job(name=f"number {number}"))[1]["id"] for number in range(20)]
    for number, identity in enumerate(ids):
        ended = client.wait(identity, timeout=DEADLINE)
        assert ended["state"] == "success", ended
        assert ended["result"] == {
            "name": f"number {number}",
            "greeting": f"hello, number {number}",
            "greeted_by": f"python {worker.pid}",
        }
    [view] = client.query("workers")
    assert (view["job_type"], view["pid"], view["slots"]) == ("greet", worker.pid, 2)
    assert client.stats()["duplicates"] == 0


def test_the_python_workers_errors_fail_the_job(client, worker):
    # Without a name the phase raises KeyError, three times.
    _, payload = client.enqueue_job(job(nobody=True))
    ended = client.wait(payload["id"], timeout=DEADLINE)
    assert ended["state"] == "failed"
    assert "KeyError" in ended["error"]["message"]
    assert "worker.py" in ended["error"]["detail"]


def test_a_restarted_manager_takes_what_the_python_worker_still_has(manager, client, worker):
    _, payload = client.enqueue_job(job(name="Ada", seconds=3))

    def running():
        return client.query({"job": {"id": payload["id"]}})["view"]["state"] == "running"

    wait_until("the job to run", running)
    manager.kill()
    manager.start()
    ended = client.wait(payload["id"], timeout=DEADLINE)
    assert ended["state"] == "success", ended
    stats = client.stats()
    assert (stats["success"], stats["duplicates"]) == (1, 0), stats


def test_the_python_worker_drains(client, worker):
    [view] = wait_until("the worker", lambda: client.query("workers"))
    assert client.query({"drain": {"worker": view["worker"]}})["count"] == 1
    assert worker.wait(timeout=DEADLINE) == 0


def test_the_manager_ends_in_order(manager, client):
    assert client.enqueue_job(job(name="Ada"))[0]
    manager.process.send_signal(signal.SIGTERM)
    assert manager.process.wait(timeout=DEADLINE) == 0
