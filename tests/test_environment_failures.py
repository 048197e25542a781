"""What the environment ended is no result: its cause is a value, it is stored, and a resumed run measures it again."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import baseline_fixture
import pytest
from suite_fixture import PLUGINS, Silent

from baselines.stored.compare import compare
from harness import causes, storage
from harness.causes import Cause
from harness.devices import cgroup
from harness.measuring import sockets
from harness.measuring.turns import Referee
from harness.processes import endings, fork_server
from harness.processes.worker import Workers
from harness.reasons import stated
from harness.sweeping.sweep import StorageFailed, remaining, sweep
from harness.types import Case, Control, Measurement, Protocol, Run

RunSuite = Callable[..., Run]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk for files that grow: the kernel takes a part of a write and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wrapped(error: Exception) -> Exception:
    """`error` as the reason of a library's own."""
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("the library's own words") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, Cause.DISK_FULL),
        (errno.EDQUOT, Cause.DISK_FULL),
        (errno.EFBIG, Cause.FILE_LIMIT),
        (errno.EROFS, Cause.READ_ONLY),
        (errno.EACCES, Cause.NOT_PERMITTED),
        (errno.EIO, Cause.STORAGE_FAILED),
        (errno.ESTALE, Cause.STORAGE_FAILED),
        (errno.EMFILE, Cause.TOO_MANY_FILES),
        (errno.EAGAIN, Cause.NO_PROCESS),
    ],
)
def test_the_system_s_number_is_the_cause_also_behind_a_library_s_error(number: int, cause: Cause) -> None:
    error = OSError(number, os.strerror(number), "/a/file")
    assert causes.of_error(error) is cause
    assert causes.of_error(wrapped(error)) is cause
    assert cause.of_environment


def test_a_library_that_gives_no_number_gives_the_system_s_text() -> None:
    assert (
        causes.of_error(RuntimeError("IoError(Os { code: 28, message: No space left on device })")) is Cause.DISK_FULL
    )
    assert causes.of_error(RuntimeError("can't start new thread")) is Cause.NO_PROCESS
    for other in (ValueError("it broke"), FileNotFoundError(errno.ENOENT, "No such file"), socket.gaierror(-3, "name")):
        assert causes.of_error(other) is None


def test_every_cause_has_words() -> None:
    assert set(causes.WORDS) == set(Cause)


def test_folders_that_cannot_be_written_to_tell_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert causes.of_folders([tmp_path]) is None
    assert list(tmp_path.iterdir()) == []
    assert causes.of_folders([tmp_path, tmp_path / "gone"]) is Cause.FOLDER_GONE

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert causes.of_folders([tmp_path]) is Cause.DISK_FULL
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_the_disk_does_not_take_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    case = Case(model="m")
    run = Run(
        id="r", suite="s", protocol=Protocol(), environment={}, metrics={}, cases=(case,), measurements=()
    )  # fmt: skip
    storage.create(tmp_path, run)
    path = tmp_path / storage.MEASUREMENTS_FILE
    storage.append(tmp_path, Measurement(case=case, replicate=0, status="ok"))
    before = path.read_bytes()
    header = (tmp_path / storage.RUN_FILE).read_bytes()
    with files_of_at_most(len(before) + 100):
        with pytest.raises(OSError, match=r"measurements\.jsonl") as caught:
            storage.append(tmp_path, Measurement(case=case, replicate=1, status="ok"))
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == before
    with files_of_at_most(50), pytest.raises(OSError, match=r"run\.json"):
        storage.write_header(tmp_path, run)
    assert (tmp_path / storage.RUN_FILE).read_bytes() == header
    assert sorted(p.name for p in tmp_path.iterdir()) == [storage.MEASUREMENTS_FILE, storage.RUN_FILE]
    storage.append(tmp_path, Measurement(case=case, replicate=1, status="ok"))
    back = storage.load(tmp_path)
    assert [m.replicate for m in back.measurements] == [0, 1]
    assert back.problems == ()


def test_what_the_environment_failed_is_measured_again_and_the_attempt_is_kept(
    run_suite: RunSuite, workers: Workers, tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    run = run_suite(
        f" - {{model: planted_until_mended, weights: {tmp_path}/w, seed: [{errno.EMFILE}, 0]}}\n"
        " - {model: [planted_kill, planted_terminated, planted_segfault]}\n"
    )
    found = {(m.case.model, m.case.seed): m.cause for m in run.measurements}
    assert found == {
        ("planted_until_mended", errno.EMFILE): Cause.TOO_MANY_FILES,
        ("planted_until_mended", 0): None,
        ("planted_kill", 0): Cause.KILLED,
        ("planted_terminated", 0): Cause.KILLED,
        ("planted_segfault", 0): None,
    }
    assert all(causes.WORDS[m.cause] in str(m.reason) for m in run.measurements if m.cause)
    assert run.finished is None
    assert {b.case.model for b in remaining(run)} == {"planted_until_mended", "planted_kill", "planted_terminated"}
    (tmp_path / "w" / "mended").touch()
    resumed = sweep(run, workers, PLUGINS, Silent())
    (good,) = [m for m in resumed.measurements if m.case.seed]
    assert (good.status, good.attempt) == ("ok", 1)
    assert next(m for m in run.measurements if m.case.seed) in resumed.superseded
    own = [m for m in resumed.measurements if m.case.model == "planted_until_mended" and not m.case.seed]
    assert [(m.status, m.attempt) for m in own] == [("failed", 0)]  # its own failure stands
    again = sweep(resumed, workers, PLUGINS, Silent(), retry_failed=True)
    own = [m for m in again.measurements if m.case.model == "planted_until_mended"]
    assert [m.status for m in own] == ["ok", "ok"]
    crash = [m for m in (*again.measurements, *again.superseded) if m.case.model == "planted_segfault"]
    assert [(m.status, m.attempt) for m in crash] == [("failed", 1), ("failed", 0)]


def test_a_row_that_the_environment_failed_is_missing_and_no_regression() -> None:
    """Nothing is known of it: the code that was measured has not broken."""
    then = baseline_fixture.run_of(baseline_fixture.measured(baseline_fixture.latency(1, 1, 1)))
    full = Measurement(case=baseline_fixture.A, replicate=0, status="failed", reason=causes.reason(Cause.DISK_FULL))
    (verdict,) = compare(baseline_fixture.run_of([full]), baseline_fixture.stored(then)).verdicts
    assert (verdict.metric, verdict.outcome) == ("row", "missing")
    broken = replace(full, reason=stated("it broke"))
    (verdict,) = compare(baseline_fixture.run_of([broken]), baseline_fixture.stored(then)).verdicts
    assert verdict.outcome == "regressed"


def test_a_control_and_an_extra_process_that_the_environment_failed_are_measured_again(
    run_suite: RunSuite, workers: Workers, tmp_path: Path
) -> None:
    run = run_suite(" - {model: planted_ok}\n")
    folder, case = tmp_path / "run", run.cases[0]
    failed = Measurement(case=case, replicate=0, status="failed", reason=causes.reason(Cause.KILLED))
    (folder / storage.CONTROLS_FILE).unlink()
    storage.append_control(folder, Control(side="a", measurement=failed))
    storage.append(folder, replace(failed, replicate=1))
    stopped = storage.load(folder)
    assert [(b.case, b.replicate) for b in remaining(stopped)] == [(case, 1)]
    whole = sweep(stopped, workers, PLUGINS, Silent())
    assert whole.problems == ()
    assert remaining(whole) == []
    assert {(c.side, c.measurement.status) for c in whole.controls} == {
        ("a", "failed"), ("a", "ok"), ("b", "ok"), ("overhead", "ok"),
    }  # fmt: skip
    assert [m.status for m in whole.measurements] == ["ok", "ok"]


def test_an_error_of_the_models_own_while_it_handled_one_of_the_system_is_its_own() -> None:
    def model() -> None:
        try:
            raise OSError(errno.EMFILE, "too many files")
        except OSError:
            int("x")

    with pytest.raises(ValueError, match="invalid literal") as caught:
        model()
    assert causes.of_error(caught.value) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_a_disk_that_takes_nothing_more_ends_the_sweep_and_resume_goes_on(
    number: int, run_suite: RunSuite, workers: Workers, tmp_path: Path
) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(StorageFailed, match=os.strerror(number)):
        run_suite(
            f" - {{model: planted_until_mended, weights: {tmp_path}/w, seed: {number}}}\n - {{model: planted_ok}}\n"
        )
    stopped = storage.load(tmp_path / "run")
    assert [m.status for m in stopped.measurements] == ["failed"]
    (tmp_path / "w" / "mended").touch()
    whole = sweep(stopped, workers, PLUGINS, Silent())
    assert [m.status for m in whole.measurements] == ["ok", "ok"]
    assert whole.finished is not None


def test_weights_that_go_away_during_the_run_are_a_failure_of_the_environment(
    run_suite: RunSuite, workers: Workers, tmp_path: Path
) -> None:
    folder = tmp_path / "w"
    folder.mkdir()

    class Unmount(Silent):
        def end(self, measurement: Measurement) -> None:
            super().end(measurement)
            if folder.exists():
                folder.rmdir()

    run = run_suite(
        f" - {{model: planted_ok}}\n - {{model: planted_until_mended, weights: {folder}}}\n", listener=Unmount()
    )
    assert [m.cause for m in run.measurements] == [None, Cause.WEIGHTS_GONE]
    assert [b.case.model for b in remaining(run)] == ["planted_until_mended"]


def test_a_kill_by_the_kernel_is_out_of_memory_also_where_it_hit_the_fork_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "a.log"
    for reply in (
        endings.died(-signal.SIGKILL, log, kernel_out_of_memory=True),
        endings.died(fork_server.LOST, log, kernel_out_of_memory=True),
        endings.not_started(EOFError(), True, log),
        endings.not_started(ConnectionResetError(errno.ECONNRESET, "reset"), True, log),
    ):
        assert (reply.status, causes.of_reason(reply.reason)) == ("oom", Cause.KERNEL_OUT_OF_MEMORY)
    monkeypatch.setattr(fork_server, "runs", lambda: False)
    for reply in (
        endings.died(fork_server.LOST, log, kernel_out_of_memory=False),
        endings.not_started(EOFError(), False, log),
    ):
        assert (reply.status, causes.of_reason(reply.reason)) == ("failed", Cause.FORK_SERVER_ENDED)
    assert causes.of_reason(endings.not_started(OSError(errno.EMFILE, "x"), False, log).reason) is Cause.TOO_MANY_FILES
    assert causes.of_reason(endings.not_started(OSError(errno.ENOMEM, "x"), False, log).reason) is Cause.NO_PROCESS
    assert causes.of_reason(endings.died(-signal.SIGSEGV, log, False).reason) is None
    assert causes.of_reason(endings.died(3, log, False).reason) is None


@pytest.mark.parametrize(
    ("line", "mount", "name"),
    [
        ("0::/pod/own", "", "memory.events"),
        ("0::/pod/own", "", "memory.events.local"),
        ("5:memory:/pod/own", "memory", "memory.oom_control"),
    ],
)
@pytest.mark.parametrize("group", ["pod/own", "pod", "."])
def test_kills_are_counted_in_every_group_above(
    line: str, mount: str, name: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "PROC", tmp_path / "proc")
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"1:cpu:/elsewhere\n{line}\n")
    (tmp_path / "cgroup" / mount / "pod/own").mkdir(parents=True)
    assert cgroup.oom_kills() == 0
    file = tmp_path / "cgroup" / mount / group / name
    file.write_text("oom_kill_disable 0\nunder_oom 0\noom 7\noom_kill 2\n")
    assert cgroup.oom_kills() == 2
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 9\noom_kill 3\n")
    assert cgroup.oom_kills() == 5


def test_a_temporary_folder_too_long_for_a_socket_is_replaced_or_refused_in_one_line(tmp_path: Path) -> None:
    long = "/" + "x" * 90
    assert sockets.folder("/tmp") == "/tmp"
    assert sockets.folder(long, [str(tmp_path / "none"), str(tmp_path)]) == str(tmp_path)
    with pytest.raises(sockets.NoSocketFolder, match="set TMPDIR to a folder of at most 75 bytes") as caught:
        sockets.folder(long, [str(tmp_path / "none")])
    assert "\n" not in str(caught.value)


def test_the_referee_of_a_paired_run_has_a_socket_below_a_long_folder_too(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    referee = Referee(long)
    address = Path(referee.address)
    assert address.is_socket()
    referee.close()
    assert not address.parent.exists()
