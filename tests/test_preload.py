"""What a fork server imports once: all that the cases will use, and nothing that they will not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import benches
from benches import preload
from benches.preload import MODEL_LIBRARIES, libraries
from harness.devices import NoSuchDevice, device
from harness.registry import BACKENDS
from harness.types import Case

HERE = Path(__file__).parent
QUANTISER = "torchao.quantization"
PLANTED = Case(model="planted_ok")


def test_a_case_asks_for_its_models_its_backends_and_its_precisions_libraries() -> None:
    assert libraries([PLANTED]) == ()
    assert libraries([Case(model="digits_sd")]) == MODEL_LIBRARIES  # it names none of its own
    assert "timm" in libraries([Case(model="digits_vit")])
    assert not any(name.startswith("diffusers") for name in libraries([Case(model="digits_vit")]))
    assert libraries([PLANTED.with_(precision="int8_dynamic")]) == (QUANTISER,)
    assert libraries([PLANTED.with_(backend="torch_compile")]) == ("torch._inductor.compile_fx",)
    assert "onnxruntime" in libraries([PLANTED, PLANTED.with_(backend="onnxruntime")])


def test_both_arms_get_the_libraries_of_either() -> None:
    there = libraries([PLANTED], {}, {"backend": "torch_compile", "precision": "int8_dynamic"})
    assert there == (*BACKENDS["torch_compile"].libraries, QUANTISER)


SCRIPT = """
from pathlib import Path
from harness.processes.worker import Workers
from worker_calls import imported
if __name__ == "__main__":
    workers = Workers(("planted",), Path({folder!r}), ("sklearn.svm",))
    names = ("sklearn.svm", "timm", "diffusers")
    print(workers.call(imported, names, 60.0, "imported", lambda _phase: None).value)
"""


@pytest.mark.slow
def test_a_worker_finds_imported_what_was_asked_for_and_only_that(tmp_path: Path) -> None:
    """In a process of its own: a process has one fork server, and that of the tests has everything."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    there = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE / "fixtures", HERE.parent)))}
    done = subprocess.run([sys.executable, str(script)], env=there, capture_output=True, text=True, check=False)
    assert done.stdout == "['sklearn.svm']\n", done.stderr


EVERYTHING = [
    Case(model=model, backend=backend, precision=precision)
    for model in ("digits_vit", "digits_dit", "digits_sd")
    for backend in ("eager", "torch_compile", "onnxruntime", "openvino", "tensorrt")
    for precision in ("fp32", "int8_dynamic")
]

FORKED = """
import importlib, os, sys, torch
for name in sys.argv[1:]:
    importlib.import_module(name)
child = os.fork()
if child == 0:
    os._exit(int(torch.cuda._is_in_bad_fork()))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def poisoned(names: tuple[str, ...]) -> bool:
    """Whether a process forked after these imports can have no CUDA; torch tells it without a GPU, too."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, *names], capture_output=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 1


@pytest.mark.slow
def test_beside_a_gpu_nothing_is_imported_that_takes_cuda_from_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "gpu_here", lambda: True)
    chosen = libraries(EVERYTHING)
    assert {"timm", "torch._inductor.compile_fx"} <= set(chosen)
    assert not poisoned(("harness.processes.measure", *chosen, *benches.PLUGINS))
    monkeypatch.setattr(preload, "gpu_here", lambda: False)
    assert poisoned(libraries([Case(model="digits_vit", precision="int8_dynamic")])), "then the list is needed no more"


def test_a_worker_that_was_forked_too_late_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.devices.cuda.unavailable", lambda: None)
    monkeypatch.setattr("torch.cuda._is_in_bad_fork", lambda: True)
    with pytest.raises(NoSuchDevice, match="calls CUDA when the fork server imports it"):
        device("cuda")
