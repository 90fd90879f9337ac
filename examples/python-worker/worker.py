"""A Carbontube worker in plain pyzmq and JSON: docs/protocol.md, sections 5.2 to 5.4.

python3 worker.py JOB_TYPE PUSH_CONNECT PUB_CONNECT, for example
python3 worker.py greet tcp://127.0.0.1:5050 tcp://127.0.0.1:6000
"""
import json, os, sys, time, traceback, uuid
from concurrent.futures import ThreadPoolExecutor
import zmq


def execute(instructions):
    """The phase: returns an object to merge over the instructions, or None."""
    time.sleep(instructions.get("seconds", 0))
    return {"greeting": f"hello, {instructions['name']}", "greeted_by": f"python {os.getpid()}"}


job_type, push_connect, pub_connect = sys.argv[1:4]
worker, slots, sequence, next_beat, draining = str(uuid.uuid4()), 2, 0, 0, False
manager, held, results = {}, {}, {}  # attempts held, and the results not acknowledged yet
pool, context = ThreadPoolExecutor(slots), zmq.Context()
pull, push, pub = (context.socket(kind) for kind in (zmq.PULL, zmq.PUSH, zmq.PUB))
address = f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}"
push.connect(push_connect), pub.connect(pub_connect)


def message(kind, body, payloads=()):
    return [b"CTB\x01" + kind + b"J", json.dumps({"worker": worker, **body}).encode(), *payloads]


def run(payload):
    try:
        output = execute(json.loads(payload))
        return "success", b"" if output is None else json.dumps({**json.loads(payload), **output}).encode()
    except Exception as error:
        report = {"message": f"{type(error).__name__}: {error}", "detail": traceback.format_exc()}
        return {"failure": {"kind": "error", "error": report, "retry": True}}, b""


def hand_back(attempts, reason):
    """Gives back those that have not started."""
    back = [held.pop(each)[0] for each in attempts if each in held and held[each][1].cancel()]
    if back:
        push.send_multipart(message(b"B", {"reason": reason, "attempts": back}))


def receive(header, body, *payloads):
    global next_beat, draining
    kind, body = header[4:5], json.loads(body)
    manager.update(body["head"])  # who speaks, its epoch, and how far we have received
    if kind == b"H":  # Hello: tell at once what is held, and send all results again
        next_beat = 0
        results.update({each: 0 for each in results})
    elif kind == b"D" and body.get("worker") in (None, worker):  # Dispatch, and not to another at this address
        for job, payload in zip(body["jobs"], payloads):
            entry = {key: job[key] for key in ("attempt", "job", "phase")}
            if job["attempt"] not in held:
                held[job["attempt"]] = entry, pool.submit(run, payload)
    elif kind == b"K":  # Ack
        for attempt in body["attempts"]:
            if results.pop(attempt, None) is not None:
                del held[attempt]
    elif kind == b"Y":  # Recall
        hand_back(body["attempts"], "recalled")
    elif kind == b"N":  # Drain
        next_beat, draining = 0, True
        hand_back(list(held), "draining")


while held or not draining:
    for attempt, (_, future) in held.items():
        if future.done():
            results.setdefault(attempt, 0)
    if time.monotonic() >= next_beat:
        next_beat, sequence = time.monotonic() + 1, sequence + 1
        state = lambda each: "done" if each in results else "running" if held[each][1].running() else "queued"
        known = [{**manager, "held": [{**held[each][0], "state": state(each)} for each in held]}]
        beat = {"sequence": sequence, "job_type": job_type, "address": address, "slots": slots, "pid": os.getpid(),
                "state": "draining" if draining else "available", "managers": known if manager else []}
        pub.send_multipart([b"available", *message(b"V", beat)])
    due = [each for each, again in results.items() if time.monotonic() >= again]
    if due and push.poll(0, zmq.POLLOUT):
        done = [(held[each][0], *held[each][1].result()) for each in due]
        body = {"results": [{**entry, "outcome": outcome} for entry, outcome, _ in done]}
        push.send_multipart(message(b"S", body, [payload for *_, payload in done]))
        results.update({each: time.monotonic() + 5 for each in due})
    if pull.poll(5):
        receive(*pull.recv_multipart())
push.send_multipart(message(b"L", {}))
context.destroy(linger=5000)
