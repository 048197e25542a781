"""Exports whose batch or image size is free: what they take, and what an export cannot leave free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx_fixture import Network, export, images, request_in, run

from harness.backends.onnx import export as onnx_export
from harness.types import Component, Unavailable


def test_a_free_batch_takes_any_size(tmp_path: Path) -> None:
    component = Component(name="net", module=Network().eval(), inputs=(images(2),))
    free = export(component, "fp32", request_in(tmp_path, (), "dynamic_batch"))
    fixed = export(component, "fp32", request_in(tmp_path, work="fixed"))
    assert [tuple(run(free, images(n)).shape) for n in (1, 2, 7)] == [(1, 10), (2, 10), (7, 10)]
    with pytest.raises(Exception, match="invalid dimensions"):
        run(fixed, images(7))


@pytest.mark.parametrize(
    ("free", "what", "shape"),
    [("dynamic_batch", "batch size", (2, 1, 8, 8)), ("dynamic_size", "image size", (1, 1, 8, 8))],
)
def test_what_export_fixes_is_unsupported(free: str, what: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.ones(shape)

    fixed = Component(name="net", module=Fixed(), inputs=(images(2),))
    with pytest.raises(Unavailable, match=f"{free}: torch.export made the {what} of net a constant"):
        export(fixed, "fp32", request_in(tmp_path, (), free))
    assert not list((tmp_path / "exports").iterdir())


def test_a_free_size_takes_pictures_of_another_size(tmp_path: Path) -> None:
    wide = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Upsample(scale_factor=2)).eval()
    net = Component(name="net", module=wide, inputs=(images(2),))
    free = export(net, "fp32", request_in(tmp_path, (), "dynamic_size"))
    larger = torch.randn(2, 1, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(run(free, larger), wide(larger), rtol=1e-5, atol=1e-5)
    assert tuple(run(free, images(2)).shape) == (2, 4, 16, 16)
    assert onnx_export.facts_of([free])["free_dimensions"] == {"net": {next(iter(free.free)): [2, 3]}}
    with pytest.raises(Exception, match="invalid dimensions"):
        run(free, images(3))


def test_a_free_size_needs_pictures(tmp_path: Path) -> None:
    lone = Component(name="net", module=torch.nn.Linear(64, 10).eval(), inputs=(torch.randn(2, 64),))
    with pytest.raises(Unavailable, match="no network of this model has images or latents"):
        export(lone, "fp32", request_in(tmp_path, (), "dynamic_size"))
