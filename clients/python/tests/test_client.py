"""The client against a scripted manager in pyzmq."""

import json
import threading
import time

import pytest
import zmq
from scripted import accepted, answer, outcome, refusal

from carbontube import ConnectError, NotConfirmed, PipelineClient, ProtocolError, Refused, wire

JOB = {"name": "video", "instructions": {"video_path": "/tmp/video1.mp4"}}


def accept(kind, body, payloads):
    assert kind == "E"
    return [accepted(body)]


def silent(kind, body, payloads):
    return []


def test_a_job_is_confirmed(manager):
    there = manager(accept)
    with PipelineClient(there.address) as client:
        assert client.confirmed
        assert client.info["pipeline"] == "video"
        ok, payload = client.enqueue_job(JOB)
    assert ok
    assert payload["confirmed"] and payload["state"] == "enqueued"
    assert payload["instructions"] == JOB
    [(_, body, payloads)] = there.seen
    assert body["pipeline"] == "video"
    assert body["jobs"] == [{"id": payload["id"]}]
    assert [json.loads(frame) for frame in payloads] == [JOB["instructions"]]


def test_enqueueing_connects_by_itself(manager):
    client = PipelineClient(manager(accept).address)
    assert client.enqueue_job({"name": "video"})[0]
    client.close()


def test_a_rejected_job_is_not_ok(manager):
    rejected = {"rejected": {"id": None, "code": "unknown_pipeline", "message": "only audio"}}
    there = manager(lambda kind, body, payloads: [outcome(body, rejected)])
    with PipelineClient(there.address) as client:
        ok, payload = client.enqueue_job(JOB)
    assert not ok and not payload["confirmed"]
    assert payload["error"] == {"code": "unknown_pipeline", "message": "only audio"}


def test_the_same_id_twice_is_one_job(manager):
    def script(kind, body, payloads):
        return [outcome(body, {"duplicate": {"id": body["jobs"][0]["id"], "state": "running"}})]

    with PipelineClient(manager(script).address) as client:
        ok, payload = client.enqueue_job(JOB, job_id="order-7")
    assert ok and payload["id"] == "order-7" and payload["state"] == "running"


@pytest.mark.parametrize("code", ["busy", "journal", "draining"])
def test_a_refusal_that_passes_is_asked_again_with_the_same_id(manager, code):
    def script(kind, body, payloads):
        return [refusal(body, code) if len(there.seen) < 3 else accepted(body)]

    there = manager(script)
    with PipelineClient(there.address) as client:
        assert client.enqueue_job(JOB)[0]
    assert len(there.seen) == 3
    assert len({body["jobs"][0]["id"] for _, body, _ in there.seen}) == 1


def test_silence_is_not_confirmed(manager):
    with PipelineClient(manager(silent).address) as client:
        client.timeout = 0.2
        ok, payload = client.enqueue_job(JOB)
    assert not ok
    assert payload["error"]["code"] == "not_confirmed"
    assert "same id is safe" in payload["error"]["message"]


def test_a_lost_answer_is_asked_for_again_after_a_restart(manager):
    there = manager(silent)
    client = PipelineClient(there.address).connect()

    def restart(kind, body, payloads):
        assert body == there.seen[0][1], "the same request"
        return [accepted(body)]

    def swap():
        while not there.seen:
            time.sleep(0.001)
        there.stop()
        there.stop = lambda: None
        manager(restart, address=there.address)

    thread = threading.Thread(target=swap)
    thread.start()
    ok, payload = client.enqueue_job(JOB)
    thread.join()
    client.close()
    assert ok, payload


def test_late_and_foreign_answers_are_passed_over(manager):
    def script(kind, body, payloads):
        old = dict(body, request=body["request"] + 1000)
        return [refusal(old, "busy"), outcome(old), accepted(body)]

    with PipelineClient(manager(script).address) as client:
        assert client.enqueue_job(JOB)[0]


def test_waiting_gives_the_result(manager):
    def script(kind, body, payloads):
        assert kind == "W" and body["pipeline"] == "video"
        nothing_yet = {"request": body["request"], "jobs": []}
        job = {"id": body["ids"][0], "state": "success", "error": None}
        ended = {"request": body["request"], "jobs": [job]}
        return [wire.encode("w", nothing_yet), wire.encode("w", ended, [b'{"segments":4}'])]

    with PipelineClient(manager(script).address) as client:
        job = client.wait("order-7")
    assert job == {"id": "order-7", "state": "success", "error": None, "result": {"segments": 4}}


@pytest.mark.parametrize("code", ["busy", "journal", "draining"])
def test_waiting_asks_again_after_a_refusal_that_passes(manager, code):
    def script(kind, body, payloads):
        if len(there.seen) < 3:
            return [refusal(body, code)]
        job = {"id": body["ids"][0], "state": "failed", "error": None}
        return [wire.encode("w", {"request": body["request"], "jobs": [job]}, [b""])]

    there = manager(script)
    with PipelineClient(there.address) as client:
        assert client.wait("order-7")["state"] == "failed"
    assert len(there.seen) == 3


def test_a_connection_that_is_cut_without_a_word_is_found_out(manager):
    with PipelineClient(manager(silent).address) as client:
        found = {
            option: client._socket.get(option)
            for option in (
                zmq.TCP_KEEPALIVE,
                zmq.TCP_KEEPALIVE_IDLE,
                zmq.TCP_KEEPALIVE_INTVL,
                zmq.TCP_KEEPALIVE_CNT,
                zmq.TCP_MAXRT,
            )
        }
    assert list(found.values()) == [1, 10, 10, 3, 20_000]


def test_waiting_ends_with_its_timeout(manager):
    with PipelineClient(manager(silent).address) as client:
        with pytest.raises(NotConfirmed):
            client.wait("order-7", timeout=0.1)


def test_questions_are_answered_or_refused(manager):
    def script(kind, body, payloads):
        if body["query"] == "stats":
            return [wire.encode("q", answer(body, {"stats": {"live": 3}}))]
        return [refusal(body, "unknown_job")]

    with PipelineClient(manager(script).address) as client:
        assert client.stats() == {"live": 3}
        with pytest.raises(Refused) as caught:
            client.query({"job": {"id": "order-7"}})
    assert caught.value.code == "unknown_job"


def test_an_answer_in_another_version_is_an_error(manager):
    def script(kind, body, payloads):
        header, *rest = accepted(body)
        return [[header[:3] + b"\x09" + header[4:], *rest]]

    with PipelineClient(manager(script).address) as client:
        with pytest.raises(ProtocolError, match="version 09"):
            client.enqueue_job(JOB)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": 7, "instructions": {}},
        {"name": "video", "instructions": [1]},
        {"name": "video", "instructions": {"x": object()}},
        {"name": "video", "instructions": {"x": float("inf")}},
    ],
)
def test_what_cannot_be_a_job_is_refused_before_anything_is_sent(data):
    with pytest.raises(ValueError):
        PipelineClient("tcp://127.0.0.1:1").enqueue_job(data)


def test_a_pull_address_gets_the_message_of_the_original():
    context = zmq.Context()
    pull = context.socket(zmq.PULL)
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    with PipelineClient(f"tcp://127.0.0.1:{port}") as client:
        assert not client.confirmed
        ok, payload = client.enqueue_job(JOB)
        assert ok and not payload["confirmed"]
        with pytest.raises(ValueError, match="api address"):
            client.wait(payload["id"])
    assert pull.poll(10_000), "closing writes what was handed over"
    assert json.loads(pull.recv()) == {
        "id": payload["id"],
        "pipeline": True,
        "instructions": JOB,
    }
    context.destroy(linger=0)


def test_nobody_there_is_an_error_that_names_the_address():
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    # A socket of another type is as good as nobody.
    with pytest.raises(ConnectError, match=f":{port} within 0.3 s"):
        PipelineClient(f"tcp://127.0.0.1:{port}", timeout=0.3).connect()
    context.destroy(linger=0)
    with pytest.raises(ConnectError, match="is not an address"):
        PipelineClient("nonsense").connect()


def test_a_router_that_does_not_answer_is_an_error():
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(ConnectError, match="does not answer"):
        PipelineClient(f"tcp://127.0.0.1:{port}", timeout=0.3).connect()
    context.destroy(linger=0)
