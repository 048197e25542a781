"""Everything that is registered keeps its promises: names, descriptions, cheap listing, the import layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import benches
from harness.derived import DERIVED
from harness.registry import BACKENDS, MODELS, PRECISIONS, PROBES, SCHEDULERS, DuplicateName, Registry, UnknownName
from harness.suite import check
from harness.types import Case

ROOT = Path(__file__).parent.parent
benches.load_plugins()


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_every_backend_runs_a_precision_or_says_why_not() -> None:
    assert BACKENDS["eager"].unavailable("fp32", "cpu") is None
    for name, backend in BACKENDS.items():
        for precision in PRECISIONS:
            reason = backend.unavailable(precision, "cpu")
            assert reason is None or len(str(reason)) > 10, (name, precision)
        assert backend.label
        assert backend.description


def test_every_metric_has_all_that_is_needed_to_print_it() -> None:
    metrics = [m for p in PROBES.values() for m in p.metrics] + [d.metric for d in DERIVED]
    assert len({m.name for m in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.unit in {"s", "B", "J", "W", "dB", "1", "share", "count", "image/s"}, metric
        assert metric.label
        assert len(metric.description) > 20
        assert metric.better in {"lower", "higher", None}


@pytest.mark.parametrize("name", [n for n in MODELS if not n.startswith("planted")])
def test_every_model_has_valid_defaults(name: str) -> None:
    model = MODELS[name]
    assert check(Case(model=name, weights=model.weights[0], **model.axes)) is None
    assert model.family
    assert model.description


def test_every_scheduler_counts_its_model_calls() -> None:
    assert {name: s.evaluations(20) for name, s in SCHEDULERS.items() if name in {"ddim", "heun", "pndm"}} == {
        "ddim": 20,
        "heun": 39,
        "pndm": 21,
    }


def test_a_registry_refuses_duplicates_and_answers_typos() -> None:
    registry: Registry[int] = Registry("thing")
    registry.register("alpha", 1)
    with pytest.raises(DuplicateName, match="thing 'alpha' is registered twice"):
        registry.register("alpha", 2)
    with pytest.raises(UnknownName, match=r"unknown thing 'alpah'; did you mean 'alpha'\?"):
        registry["alpah"]


def test_listing_imports_nothing_heavy() -> None:
    done = python(
        "import sys, benches; benches.load_plugins(); "
        "heavy = {'torch', 'diffusers', 'timm', 'transformers', 'onnxruntime'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr


def test_reports_and_baselines_import_with_torch_absent() -> None:
    done = python(
        "import importlib.abc, sys\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import baselines.stored.compare, baselines.stored.store, reports.page.page\n"
        "import reports.formats.markdown, reports.formats.terminal, harness.frames"
    )
    assert done.returncode == 0, done.stderr
