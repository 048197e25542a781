"""The fp32 reference of a GPU row if the GPU memory does not suffice: a separate process computes it on the CPU.

The process may take as long as a row (`timeout_s`), and is killed when that time is over. If it needs more memory than
the host has, only this process dies. In both cases the row that waits for it keeps what was measured, and has no
reference, with the reason.
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
class Order:
    """What is to be computed: `case` is the row's. `plugins` fill the registries."""

    case: Case
    what: What
    plugins: tuple[str, ...]
    threads: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The output as a float32 array with the hash of the weights that produced it; or `missing`, the reason why there
    is none; or `mismatch`, a finding about the network that makes the row invalid."""

    output: Any = None
    weights_hash: str = ""
    missing: Reason | None = None
    mismatch: Reason | None = None


def computed(order: Order, limit_s: float) -> Answer:
    """The answer to `order`, within `limit_s` seconds."""
    read_end, alive = os.pipe()  # closes when this process ends, whereupon the other one ends too
    paths = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-c", START, str(answer), str(read_end)],
                input=pickle.dumps(order),
                pass_fds=(read_end,),
                env={**os.environ, "PYTHONPATH": paths},
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Answer(missing=Reason("cpu_reference_too_slow", {"limit_s": limit_s}))
        finally:
            os.close(read_end)
            os.close(alive)
        if answer.exists():
            found: Answer = pickle.loads(answer.read_bytes())
            return found
    if ended.returncode < 0:
        return Answer(missing=Reason("cpu_reference_killed", {"signal": signal.Signals(-ended.returncode).name}))
    return Answer(missing=Reason("cpu_reference_ended", {"code": ended.returncode}))


def main() -> None:
    """What the process runs: it reads the order from stdin, and writes the answer to the file that it is given."""
    from harness.measuring.parent_process import die_with

    die_with(int(sys.argv[2]))
    result = pickle.dumps(_answer(pickle.load(sys.stdin.buffer)))
    partial = Path(f"{sys.argv[1]}.partial")
    partial.write_bytes(result)
    partial.rename(sys.argv[1])


def _answer(order: Order) -> Answer:
    import torch

    from harness.measuring import reference_output
    from harness.measuring.trial import Mismatch

    try:
        for plugin in order.plugins:
            importlib.import_module(plugin)
        torch.set_num_threads(order.threads)
        found, weights_hash = reference_output.computed_on("cpu", order.case, order.what)
    except Mismatch as error:
        return Answer(mismatch=error.reason)
    except Exception as error:
        traceback.print_exc()
        return Answer(missing=Reason("cpu_reference_failed", {"error": one_line(error)}))
    return Answer(output=found.detach().float().numpy(), weights_hash=weights_hash)
