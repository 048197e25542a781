"""The models, the backend and the probe that the workers of a GPU check register in addition to imgbench's own.

Only the workers import it, so the registries of the program that starts them stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benches.gpu_check import control_models, networks
from benches.gpu_check import long_work as long_work
from benches.gpu_check import plain_vit as plain_vit
from benches.gpu_check.exports import EXPORTED
from benches.gpu_check.two_loops import two_loops
from harness.backends import Build, BuildRequest
from harness.backends.onnx import export as onnx_export
from harness.probes import probe
from harness.reasons import Reason
from harness.registry import BACKENDS, MODELS
from harness.types import Component, Unavailable

_MODELS: Final = {
    "check_sd15_unet": (networks.sd15_unet, "the U-Net of SD 1.5 on its own", {"image_size": 512}, ("diffusers",)),
    "check_dit_xl_2": (networks.dit_xl_2, "DiT-XL/2 on its own", {"image_size": 256}, ("diffusers",)),
    "check_hungry": (control_models.hungry, "a layer of 65,536 channels", {}, ()),
    "check_reads_back": (control_models.reads_back, "a network that reads a value back", {}, ()),
    "check_uncapturable": (control_models.uncapturable, "a network that cannot be one CUDA graph", {}, ()),
}
for _name, (_build, _description, _axes, _libraries) in _MODELS.items():
    MODELS.add(_name, family="check", description=_description, axes=_axes, libraries=_libraries)(_build)

probe("two_loops", order=65, metrics=(), first_process_only=True)(two_loops)


@BACKENDS.add("check_export")
class ExportOnly:
    """Exports to the folder that all rows share, so that a later row of the same work finds the file. It runs
    nothing."""

    label = "ONNX export"
    description = "for GPU checks: exports on the CPU for other rows"
    precisions = ("fp32", "bf16", "fp16")

    def unavailable(self, wanted: str, device: str) -> Reason | None:
        return onnx_export.missing_package()

    def build(self, components: Sequence[Component], request: BuildRequest) -> Build:
        """Raises Unavailable(EXPORTED) when the files are there: there is nothing to run."""
        onnx_export.exported(components, request, request.precision)
        raise Unavailable(EXPORTED)
