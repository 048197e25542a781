"""The registry of commands: each is declared in its own module, and a plugin adds one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from baselines.detector.recorded import RecordingRefused
from baselines.verdict import BENCHMARK_ERROR, USAGE
from benches import failures
from benches.cli import main
from benches.cli.commands import COMMANDS
from benches.cli.listing import LISTED
from harness.devices import cuda_ruled_out
from harness.storage import UnreadableRun

GREETING = """
from benches.cli.commands import COMMANDS


@COMMANDS.add("greet")
class Greet:
    help = "greet somebody"

    def arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--loud", action="store_true")

    def run(self, options):
        print(f"hello {options.name}{'!' if options.loud else ''}")
        return 11
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that adds the command `greet`, which is forgotten afterwards."""
    monkeypatch.setattr(COMMANDS, "_entries", dict(COMMANDS._entries))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "greeting_plugin", raising=False)
    path = tmp_path / "greeting_plugin.py"
    path.write_text(GREETING)
    return path


@pytest.mark.parametrize("before", [True, False])
def test_a_plugin_adds_a_command(before: bool, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named, command = ["--plugin", str(plugin)], ["greet", "Ada", "--loud"]
    assert main([*named, *command] if before else [*command, *named]) == 11
    assert capsys.readouterr().out == "hello Ada!\n"


def test_the_help_lists_a_command_of_a_plugin(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--plugin={plugin}", "--help"])
    assert ended.value.code == 0
    assert "greet somebody" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["--help", "show"])
def test_only_the_module_of_the_chosen_command_is_imported(command: str) -> None:
    code = f"""
import sys
from benches.cli import main
try:
    main([{command!r}, "nowhere"])
except SystemExit:
    pass
print(*(n.removeprefix("benches.cli.") for n in sys.modules if n.startswith("benches.cli.")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stderr.splitlines()[-1].split())
    shared = {"arguments", "commands", "printing", "run_folders"}
    assert modules - shared == ({"show"} if command == "show" else set())


REPORTS = {"pandas", "pyarrow", "plotly", "jinja2", "scipy"}
MODELS = {"torchvision", "timm", "diffusers", "transformers", "sklearn"}
RUNTIMES = {"onnx", "onnxruntime", "openvino", "tensorrt"}
HEAVY = {"torch", "numpy"} | REPORTS | MODELS | RUNTIMES
OF_PROBES = {"harness.probes", "harness.measuring.trial"}  # what measures, beside the registries
OF_A_RUN = {"harness.sweeping.sweep", "harness.processes.worker", "harness.measuring.turns", "harness.frames"}


def _imported_by(line: str) -> set[str]:
    """The modules in memory after a command."""
    code = f"""
import sys
from benches.cli import main
try:
    code = main({line.split()!r})
except SystemExit as ended:
    code = ended.code
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    imported = set(done.stderr.splitlines()[-1].split())
    assert "harness.registry" in imported
    return imported


@pytest.mark.parametrize("line", ["--help", "--version", *(f"list {what}" for what in LISTED)])
def test_what_only_lists_imports_no_large_library(line: str) -> None:
    imported = _imported_by(line)
    has_to_ask = (
        line == "list devices" and cuda_ruled_out.without_torch() is None
    )  # only torch can say that it is there
    assert imported & HEAVY <= ({"torch", "numpy"} if has_to_ask else set())
    assert not imported & OF_A_RUN
    if line != "list metrics":
        assert not imported & OF_PROBES
    if line in {"list metrics", "list models", "list schedulers", "list devices", "list gpus"}:
        assert "harness.backends" not in imported


def test_the_doctor_imports_what_it_reports_as_usable_and_no_library_of_reports() -> None:
    imported = _imported_by("doctor")
    assert "torch" in imported
    assert not imported & (REPORTS | MODELS)


def test_every_error_of_the_table_has_a_code_of_its_own_and_others_are_defects() -> None:
    assert failures.known(failures.UsageError())
    assert (failures.exit_code(UnreadableRun()), failures.exit_code(RecordingRefused())) == (USAGE, USAGE)
    assert not failures.known(KeyError())
    assert failures.exit_code(KeyError()) == BENCHMARK_ERROR
