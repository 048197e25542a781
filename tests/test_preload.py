"""What a fork server imports once: all that the cases will use, and nothing that they will not."""

from __future__ import annotations

from pathlib import Path

from benches.preload import MODEL_LIBRARIES, QUANTISER, libraries
from harness.registry import BACKENDS
from harness.types import Case
from harness.worker import Workers

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


def test_a_worker_finds_imported_what_was_asked_for_and_only_that(tmp_path: Path) -> None:
    workers = Workers(("planted",), tmp_path, ("sklearn.svm",))
    reply = workers.call(_imported, ("sklearn.svm", "timm", "diffusers"), 60.0, "imported", lambda _phase: None)
    assert reply.value == ["sklearn.svm"]


def _imported(names: tuple[str, ...], _report: object) -> list[str]:
    import sys

    return [name for name in names if name in sys.modules]
