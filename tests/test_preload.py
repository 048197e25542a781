"""What a fork server imports once: all that the cases will use, and nothing that they will not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benches.preload import MODEL_LIBRARIES, QUANTISER, libraries
from harness.registry import BACKENDS
from harness.types import Case

HERE = Path(__file__).parent
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
from harness.worker import Workers
from test_preload import imported
if __name__ == "__main__":
    workers = Workers(("planted",), Path({folder!r}), ("sklearn.svm",))
    names = ("sklearn.svm", "timm", "diffusers")
    print(workers.call(imported, names, 60.0, "imported", lambda _phase: None).value)
"""


def test_a_worker_finds_imported_what_was_asked_for_and_only_that(tmp_path: Path) -> None:
    """In a process of its own: a process has one fork server, and that of the tests has everything."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    there = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))}
    done = subprocess.run([sys.executable, str(script)], env=there, capture_output=True, text=True, check=False)
    assert done.stdout == "['sklearn.svm']\n", done.stderr


def imported(names: tuple[str, ...], _report: object) -> list[str]:
    return [name for name in names if name in sys.modules]
