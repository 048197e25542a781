"""The driver and the host of an arm may be two versions of imgbench: what they say to each other, and refusals."""

from __future__ import annotations

import base64
import json
import pickle
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, make_dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benches
from harness import arm_host, causes
from harness.causes import Cause
from harness.measuring import reference
from harness.measuring.turns import Interleaving, Turns
from harness.paired import wire_protocol, wire_protocol_1
from harness.paired.arms import Arm
from harness.paired.hosts import ArmFailed, ArmHost, Launch
from harness.paired.paired_process import ProcessJob, ProcessResult
from harness.paired.wire_protocol import MEASURE, OtherProtocol
from harness.processes.endings import Reply
from harness.processes.measure import Job
from harness.reasons import stated
from harness.types import Case, Measurement, Metric, Protocol

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = json.loads((FIXTURES / "protocol_1.json").read_text())  # by the version of the commit that it names
REPLIES = {name: base64.b64decode(text) for name, text in RECORDED["replies"].items()}

CASE = Case(model="digits_vit", weights="digits", batch_size=8, image_size=32)
METRIC = Metric(
    name="accuracy",
    unit="",
    label="Accuracy",
    better="higher",
    kind="quality_item",
    description="share of right answers",
    summary="mean",
)
MEASURED = Measurement(
    case=CASE,
    replicate=3,
    status="ok",
    samples={"latency_s": [0.001, 0.0012], "load_s": [0.5]},
    warmup={"latency_s": [0.002]},
    facts={"work_hash": "aa", "output_shape": [8, 10], "loops": 2, "pair": [1, 2]},
    state={"elapsed_s": 1.5, "peers": 1},
    images=("a.png",),
    started="2026-11-27T10:00:00+00:00",
    duration_s=2.5,
)
JOB = Job(
    case=CASE,
    replicate=3,
    protocol=Protocol(timeout_s=1 / 3, target_interval=None, cold_cache=True),
    device="cpu",
    folder=Path("/runs/one"),
    cache=Path("/cache/base/row"),
    threads=2,
    plugins=("harness.backends", "mine"),
    only=("startup", "latency"),
    injections=("busy=0.05",),
    interleaving=Interleaving(warmups=3, turns=6, samples=4, discarded=1),
)
PROCESS = ProcessJob(
    jobs=(JOB, replace(JOB, only=None, interleaving=None, reference_until_s=4.0)),
    control_workload=False,
    referee="/tmp/turns.sock",
    arm="base",
    cpus=(0, 1),
    packages=("mine",),
)


@pytest.mark.parametrize("asked", [PROCESS, ProcessJob(jobs=(JOB,))])
def test_a_request_to_measure_is_read_as_it_was_written(asked: ProcessJob) -> None:
    message = wire_protocol.request(7, MEASURE, asked)
    assert wire_protocol.read_request(message) == (7, MEASURE, asked)
    argument = json.loads(message)["argument"]
    assert argument["jobs"][0]["case"]["model"] == "digits_vit"
    assert argument["sentinel"] == asked.control_workload, "the key of protocol 2, whatever the field is called"
    assert "control_workload" not in argument


def test_the_fields_of_a_protocol_that_a_process_does_not_need_are_not_sent() -> None:
    """An older version would refuse them as unknown."""
    of_the_run = replace(JOB.protocol, rounds=False, ratio_interval=None, budget_s=60.0, fresh_builds=True)
    process = replace(PROCESS, jobs=(replace(JOB, protocol=of_the_run),))
    message = wire_protocol.request(7, MEASURE, process)
    sent = json.loads(message)["argument"]["jobs"][0]["protocol"]
    assert list(sent) == RECORDED["fields"]["harness.types.Protocol"]
    assert wire_protocol.read_request(message) == (7, MEASURE, replace(PROCESS, jobs=(JOB,)))
    assert wire_protocol_1.Adapter().request(7, MEASURE, process) == wire_protocol_1.Adapter().request(
        7, MEASURE, replace(PROCESS, jobs=(JOB,))
    )


def test_a_reply_is_read_as_it_was_written() -> None:
    failed = Measurement(case=CASE, replicate=0, status="failed", reason=causes.reason(Cause.DISK_FULL, "no space"))
    measured = ProcessResult(measurements=(MEASURED, failed), metrics=(METRIC,), control_workload={"gemm": [0.1]})
    for given in (
        Reply(value=measured),
        Reply(value={"device": "cpu", "versions": {"torch": "2.9"}}),
        Reply(value="this machine has no cuda"),
        Reply(status="failed", reason=causes.reason(Cause.DISK_FULL, "no space"), phase=CASE.id, row=0),
    ):
        assert wire_protocol.read_reply(wire_protocol.reply(5, given)) == (5, given)
    assert json.loads(wire_protocol.reply(5, Reply(value=measured)))["measured"]["sentinel"] == {"gemm": [0.1]}


def test_a_measurement_that_cannot_be_read_is_refused_by_the_host_that_measured_it() -> None:
    measured = replace(MEASURED, facts={"loops": "two"})
    with pytest.raises(ValueError, match=r"facts\.loops: 'two' must be a whole number"):
        wire_protocol.reply(1, Reply(value=ProcessResult(measurements=(measured,))))


def test_the_fields_of_a_request_are_those_of_its_number() -> None:
    """A version that adds, removes or redefines a field here gives the protocol a new number, and reads this one."""
    renamed = {"side": "arm", "sentinel": "control_workload"}
    assert wire_protocol.NUMBER == 2
    classes = (ProcessJob, Job, Interleaving, Case, Protocol)
    not_sent = set(wire_protocol.OF_A_RUN)
    assert not_sent <= {f.name for f in fields(Protocol)}
    assert {cls.__name__: [f.name for f in fields(cls) if f.name not in not_sent] for cls in classes} == {
        name.rpartition(".")[2].replace("BlockJob", "ProcessJob"): [renamed.get(n, n) for n in names]
        for name, names in RECORDED["fields"].items()
        if name.rpartition(".")[2] in {"BlockJob", "Job", "Interleaving", "Case", "Protocol"}
    }
    assert set(json.loads(wire_protocol.reply(1, Reply(value=ProcessResult())))) == {
        *("protocol", "number", "status", "reason", "phase", "row", "measured")
    }


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b'{"protocol": 3, "number": 1}', "protocol 3"),
        (b'{"number": 1, "status": "ok"}', "not of protocol 2"),
        (b'{"protocol": 2, "number": 1, "status": "ok"}', "not of protocol 2"),
        (b"[1, 2]", "not of protocol 2"),
        (b'{"protocol', "not of protocol 2"),
    ],
)
def test_a_reply_of_another_protocol_is_refused(message: bytes, words: str) -> None:
    with pytest.raises(OtherProtocol, match=words):
        wire_protocol.read_reply(message)


def test_replies_of_protocol_1_are_read() -> None:
    adapter = wire_protocol_1.Adapter()
    assert adapter.read_reply(REPLIES["started"]) == (1, Reply(value=True))
    asked = {"device": "cpu", "versions": {"torch": "2.9"}}
    assert adapter.read_reply(REPLIES["asked"]) == (2, Reply(value=asked))
    full = stated("the disk is full", Cause.DISK_FULL)
    assert adapter.read_reply(REPLIES["failed"]) == (4, Reply(status="failed", reason=full, phase=CASE.id))
    adapter.request(4, MEASURE, replace(PROCESS, jobs=(replace(JOB, case=CASE.with_(seed=1)), JOB)))
    assert adapter.read_reply(REPLIES["failed"])[1].row == 1


def test_measurements_of_protocol_1_are_read_as_this_versions() -> None:
    number, reply = wire_protocol_1.Adapter().read_reply(REPLIES["measured"])
    result: ProcessResult = reply.value
    assert (number, result.metrics, result.control_workload) == (3, (METRIC,), {"gemm": [0.1, 0.2]})
    ok, failed = result.measurements
    assert replace(ok, missing={}, warnings=()) == MEASURED
    assert str(ok.missing["energy_j"]) == "there is no energy counter"
    assert [str(warning) for warning in ok.warnings] == ["contended: other processes used 40 % of a core"]
    assert (failed.case, failed.status) == (replace(CASE, precision="bf16"), "failed")
    assert failed.reason == stated("the disk is full", Cause.DISK_FULL)


def test_a_librarys_values_in_a_pickle_of_protocol_1_become_plain_ones() -> None:
    case = types.SimpleNamespace(model="m")
    found = types.SimpleNamespace(case=case, samples={"x": [np.float32(0.5)]}, facts={"p": Path("/a")})
    plain = {"case": {"model": "m"}, "samples": {"x": [0.5]}, "facts": {"p": "/a"}}
    assert wire_protocol_1._measurement(found) == plain


@pytest.fixture
def old_classes(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """The records of protocol 1 under the module names that they had."""
    found = {}
    for full, names in RECORDED["fields"].items():
        module, _, name = full.rpartition(".")
        found[name] = make_dataclass(name, names, namespace={"__module__": module}, frozen=True, kw_only=True)
        place = types.ModuleType(module)
        if module in sys.modules:
            vars(place).update(vars(sys.modules[module]))
        setattr(place, name, found[name])
        monkeypatch.setitem(sys.modules, module, place)
    return found


def test_a_request_of_protocol_1_is_read_by_the_classes_of_that_version(old_classes: dict[str, type]) -> None:
    number, command, block = pickle.loads(wire_protocol_1.Adapter().request(9, MEASURE, PROCESS))
    assert (number, command, type(block)) == (9, "block", old_classes["BlockJob"])
    assert (block.referee, block.side, block.cpus, block.packages) == ("/tmp/turns.sock", "base", (0, 1), ("mine",))
    first, second = block.jobs
    assert (type(first), first.folder, first.cache) == (old_classes["Job"], JOB.folder, JOB.cache)
    assert vars(first.case) == CASE.axes()
    sent = {name: value for name, value in vars(JOB.protocol).items() if name not in wire_protocol.OF_A_RUN}
    assert vars(first.protocol) == sent
    assert vars(first.interleaving) == {"warmups": 3, "turns": 6, "samples": 4, "discarded": 1}
    assert (first.plugins, first.only, first.injections) == (JOB.plugins, JOB.only, JOB.injections)
    assert (second.only, second.interleaving, second.reference_until_s) == (None, None, 4.0)
    loaded = wire_protocol_1.Adapter().request(2, "loaded", (("mine",), ("A",)))
    assert pickle.loads(loaded) == (2, "loaded", (("mine",), ("A",)))


def test_protocol_1_has_the_fields_that_were_recorded() -> None:
    """Loading a pickle checks no fields, so that a wrong one would show only when the arm reads it."""
    written = {f"{cls.__module__}.{cls.__name__}": list(cls.names) for cls in wire_protocol_1.WRITTEN.values()}
    assert written == {name: RECORDED["fields"][name] for name in written}
    assert len(written) == 5


def test_the_modules_that_a_driver_names_are_there_in_versions_of_protocol_1() -> None:
    """The first request names them before the driver knows the arm's version."""
    assert benches.PLUGINS == ("harness.backends", "harness.probes", "benches.schedulers", "benches.models")


@dataclass(frozen=True, kw_only=True)
class Newer:
    old: int
    new: int = 0


def test_what_protocol_1_cannot_express_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = wire_protocol_1._class("builtins", "Older", "old")
    monkeypatch.setattr(wire_protocol_1, "WRITTEN", {Newer: cls})
    assert vars(wire_protocol_1._written(Newer(old=1))) == {"old": 1}
    with pytest.raises(OtherProtocol, match=r"protocol 1, which has no Older\.new"):
        wire_protocol_1.Adapter().request(1, MEASURE, Newer(old=1, new=2))


@pytest.mark.parametrize("message", [pickle.dumps((1, Reply(value=True))), b"\x80\x04rubbish", b""])
def test_a_pickle_that_is_not_of_protocol_1_is_refused(message: bytes) -> None:
    """The first one is of a development version between the two protocols: its classes had other module names."""
    with pytest.raises(OtherProtocol, match="not of protocol 1"):
        wire_protocol_1.Adapter().read_reply(message)


Started = Callable[..., ArmHost]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Starts an arm whose host sends recorded replies (`tests/fixtures/recorded_host.py`)."""
    made: list[ArmHost] = []

    def start(*replies: bytes) -> ArmHost:
        for number, reply in enumerate(replies):
            (tmp_path / f"reply-{number}").write_bytes(reply)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {FIXTURES / "recorded_host.py"} {tmp_path} "$@"\n')
        python.chmod(0o755)
        launch = Launch(
            arm=Arm(name="base", text="ref=older", python=str(python)),
            environment={},
            plugins=("mine",),
            preload=("torch",),
            paths=("/mine",),
            last_paths=(),
            logs=tmp_path,
            empty=tmp_path,
        )
        made.append(ArmHost(launch))
        return made[-1]

    yield start
    for process in made:
        process.close()


def test_an_arm_of_protocol_1_is_measured(started: Started, tmp_path: Path, old_classes: dict[str, type]) -> None:
    arm = started(*(REPLIES[name] for name in ("started", "asked", "measured", "failed")))
    assert arm.call("environment", ("cpu", 2), 10.0).value["device"] == "cpu"
    assert arm.call(MEASURE, PROCESS, 10.0).value.measurements[0].samples == MEASURED.samples
    ended = arm.call(MEASURE, PROCESS, 10.0)
    assert (str(ended.reason), ended.row) == ("the disk is full", 0)
    asked = [pickle.loads((tmp_path / f"request-{number}").read_bytes()) for number in range(4)]
    logs = str(tmp_path / "base")
    assert asked[0] == (1, "start", (("mine",), logs, ("torch",), ("/mine",), ()))
    assert asked[1] == (2, "environment", ("cpu", 2))
    assert [(number, command, type(block)) for number, command, block in asked[2:]] == [
        (3, "block", old_classes["BlockJob"]),
        (4, "block", old_classes["BlockJob"]),
    ]


@pytest.mark.parametrize(
    ("reply", "spoken"),
    [
        (b'{"protocol": 3, "number": 1, "status": "ok", "value": true}', "its host speaks protocol 3;"),
        (pickle.dumps((1, Reply(value=True))), "its host speaks a message that is not of protocol 1"),
    ],
)
def test_an_arm_of_an_unknown_protocol_is_refused_in_a_sentence(started: Started, reply: bytes, spoken: str) -> None:
    with pytest.raises(ArmFailed) as refused:
        started(reply)
    assert spoken in str(refused.value)
    assert str(refused.value).endswith("this version speaks the protocols 1 and 2")


class StubWorkers:
    """Calls the function in this process."""

    def __init__(self, plugins: Any, logs: Path, preload: Any) -> None:
        self.given = (plugins, logs, preload)

    def call(self, function: Any, argument: Any, timeout_s: float, _name: str, report: Any) -> Reply:
        report("measuring")
        if timeout_s < 1.0:
            return Reply(status="timeout", reason=stated(f"no result after {timeout_s:g} s"))
        return Reply(value=function(argument, report))


def test_a_host_replies_by_this_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_host, "Workers", StubWorkers)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(arm_host.COMMANDS, "environment", lambda asked, _report: {"asked": asked})
    monkeypatch.setitem(arm_host.COMMANDS, "loaded", lambda _asked, _report: {"infinite": float("inf")})
    mine, theirs = socket.socketpair()
    driver, host = Connection(mine.detach()), Connection(theirs.detach())
    sent = {2: ("environment", ["cpu", 2]), 3: (MEASURE, ProcessJob(jobs=(JOB,))), 4: ("loaded", [[], []])}
    driver.send((1, "start", (("mine",), "/logs", ("torch",), ("/mine",), ("/theirs",))))
    for number, (command, argument) in (sent | {5: ("unknown", None)}).items():
        driver.send_bytes(wire_protocol.request(number, command, argument))
    serving = threading.Thread(target=arm_host.serve, args=(host,), daemon=True)
    serving.start()
    replies = dict(wire_protocol.read_reply(driver.recv_bytes()) for _ in range(5))
    driver.close()
    serving.join(timeout=10)
    assert not serving.is_alive()
    assert (sys.path[0], sys.path[-1]) == ("/mine", "/theirs")
    assert replies[1] == Reply(value=True)
    assert replies[2] == Reply(value={"asked": ["cpu", 2]})
    assert replies[3] == Reply(status="timeout", reason=stated("no result after 0.333333 s"), phase="measuring")
    assert (replies[4].status, replies[5].status) == ("failed", "failed")
    assert "not JSON compliant" in str(replies[4].reason)


def test_a_driver_of_protocol_1_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives no number. A newer driver is not refused, because it may speak this protocol, too."""
    monkeypatch.setattr(arm_host, "kill_when_closed", lambda _fd: None)
    monkeypatch.setattr(arm_host, "serve", lambda _connection: None)
    monkeypatch.setattr(arm_host, "Connection", lambda _fd: None)
    monkeypatch.setattr(sys, "argv", ["arm_host", "3", "4"])
    with pytest.raises(SystemExit) as refused:
        arm_host.main()
    assert refused.value.code == (
        "this version of imgbench speaks protocol 2 of `imgbench ab`, and the version that started it speaks protocol 1"
    )
    for number in ("2", "3"):
        monkeypatch.setattr(sys, "argv", ["arm_host", "3", "4", number])
        arm_host.main()


def test_the_messages_of_the_turns_are_those_of_every_protocol(tmp_path: Path) -> None:
    address = str(tmp_path / "turns.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(1)
    turns = Turns(address, "head")
    referee = Connection(listening.accept()[0].detach())
    referee.send(True)
    turns.begin_row(2)
    turns.close()
    heard = [referee.recv() for _ in range(3)]
    assert (heard[0], heard[1][:2], heard[2][:2]) == ("head", (2, 0), (1 << 30, 0))
    assert type(heard[1][2]) is float
    listening.close()
    referee.close()


def test_the_file_of_a_shared_reference_is_that_of_every_protocol() -> None:
    """Arms of two versions share the references of a run."""
    assert reference._path(Path("/run"), CASE, "timed batch") == Path("/run/references/d6886a4a1a799c4d.npy")
