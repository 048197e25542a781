"""Computes the fp32 reference of a GPU row on the CPU, in a separate process, if the GPU has too little memory.

The process may take as long as a row (`timeout_s`), and is killed when that time is over. If it needs more memory than
the host has, only this process dies. In both cases the row that waits for it keeps what was measured. Its reference is
missing, with the reason.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.causes import one_line
from harness.reasons import Reason
from harness.types import Case

if TYPE_CHECKING:
    from harness.measuring.reference_output import What

START: str = "from harness.measuring.reference_process import main; main()"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to compute. `case` is that of the row, and `plugins` are the modules that fill the registries."""

    case: Case
    what: What
    plugins: tuple[str, ...]
    threads: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """The output as a float32 array, with the hash of the weights that produced it. Without an output, `missing` is the
    reason, or `mismatch` is a finding about the network that makes the row invalid."""

    output: Any = None
    weights_hash: str = ""
    missing: Reason | None = None
    mismatch: Reason | None = None


def computed(request: Request, limit_s: float) -> Result:
    """The result of `request`. A process that takes more than `limit_s` seconds is killed."""
    read_end, alive = os.pipe()  # it closes when this process ends, and the child then ends too
    paths = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result"
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-c", START, str(file), str(read_end)],
                input=pickle.dumps(request),
                pass_fds=(read_end,),
                env={**os.environ, "PYTHONPATH": paths},
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result(missing=Reason("cpu_reference_too_slow", {"limit_s": limit_s}))
        finally:
            os.close(read_end)
            os.close(alive)
        if file.exists():
            found: Result = pickle.loads(file.read_bytes())
            return found
    if ended.returncode < 0:
        return Result(missing=Reason("cpu_reference_killed", {"signal": signal.Signals(-ended.returncode).name}))
    return Result(missing=Reason("cpu_reference_ended", {"code": ended.returncode}))


def main() -> None:
    """Runs in the process: reads the request from stdin, and writes the result to the file that argv names."""
    from harness.measuring.parent_process import kill_when_closed

    kill_when_closed(int(sys.argv[2]))
    result = pickle.dumps(_result(pickle.load(sys.stdin.buffer)))
    partial = Path(f"{sys.argv[1]}.partial")
    partial.write_bytes(result)
    partial.rename(sys.argv[1])


def _result(request: Request) -> Result:
    import torch

    from harness.measuring import reference_output
    from harness.measuring.trial import Mismatch

    try:
        for plugin in request.plugins:
            importlib.import_module(plugin)
        torch.set_num_threads(request.threads)
        found, weights_hash = reference_output.computed_on("cpu", request.case, request.what)
    except Mismatch as error:
        return Result(mismatch=error.reason)
    except Exception as error:
        traceback.print_exc()
        return Result(missing=Reason("cpu_reference_failed", {"error": one_line(error)}))
    return Result(output=found.detach().float().numpy(), weights_hash=weights_hash)
