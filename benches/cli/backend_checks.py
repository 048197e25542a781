"""Which precisions each backend runs here. The backends that need packages beside torch (ONNX Runtime, OpenVINO,
TensorRT) are checked in a process of their own, while `imgbench doctor` imports torch.

A package that ends that process becomes a reason in the doctor's table instead of the end of the doctor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import benches
from harness import backends, devices
from harness.registry import BACKENDS, PRECISIONS

START: Final = "from benches.cli.backend_checks import main; main()"
Reasons = dict[str, str | None]  # precision -> why a backend does not run it here, or None


class ChecksFailed(RuntimeError):
    """The process gave no answer; `str()` is one line for the user."""


def reasons(backend: str, device: str) -> Reasons:
    """Why a backend does not run each precision on `device`, or None where it does, checked in this process."""
    found = {precision: backends.unavailable(backend, precision, device) for precision in PRECISIONS}
    return {precision: None if reason is None else str(reason) for precision, reason in found.items()}


def apart() -> list[str]:
    """The backends that need packages beside torch."""
    return [name for name, backend in BACKENDS.items() if {*getattr(backend, "packages", ())} - {"torch"}]


class Checks:
    """The process that checks the backends `apart()` on the default device, with the plugins that the command line
    names."""

    def __init__(self, plugins: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="imgbench-")
        self._answer, self._log = (Path(self._folder.name) / name for name in ("answer", "log"))
        paths = os.pathsep.join(path for path in sys.path if path)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(self._answer), *plugins],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": paths},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def reasons(self) -> dict[str, Reasons]:
        """What `reasons` gives in the process for each of the backends `apart()`. Waits for it. Raises ChecksFailed."""
        code = self._process.wait()
        if self._answer.exists():
            found: dict[str, Reasons] = json.loads(self._answer.read_text(encoding="utf-8"))
            return found
        said = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        raise ChecksFailed(f"the process that checks the backends ended with exit code {code}: {last}")


def main() -> None:
    """What the process runs. Its arguments are the file for the answer, and the plugins."""
    answer, *plugins = sys.argv[1:]
    benches.load_plugins(*plugins)
    partial = Path(f"{answer}.partial")
    device = devices.default()
    partial.write_text(json.dumps({name: reasons(name, device) for name in apart()}), encoding="utf-8")
    partial.rename(answer)
