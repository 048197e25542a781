"""fp16 convolutions on a CPU without kernels for them: torch's own way is so slow that one picture of a full-size VAE
takes half an hour. A row that cannot be measured in its time is skipped before it begins. What its convolutions will
take is measured: each with the shape of its own input, eight of its output channels computed and the rest reckoned,
since torch takes them one by one there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.timing import Timer
from harness.types import Component, Protocol, Unsupported

if TYPE_CHECKING:
    import torch

    from harness.backends import BuildRequest

CHANNELS: Final = 8  # that are computed


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One call of a layer: shapes of its input and its weights, and what else its time depends on."""

    images: tuple[int, ...]
    weights: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def seconds_in_fp16(self, timer: Timer) -> float:
        """Roughly what torch takes for it in fp16 here."""
        import torch

        channels, *kernel = self.weights
        computed = channels if self.groups > 1 else min(CHANNELS, channels)
        convolve = getattr(torch.nn.functional, f"conv{len(kernel) - 1}d")
        images = torch.zeros(self.images, dtype=torch.float16)
        weights = torch.zeros(computed, *kernel, dtype=torch.float16)
        how = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        with torch.no_grad():
            _, seconds = timer.timed(lambda: convolve(images, weights, **how))
        return seconds * channels / computed


def longest_iteration_s(protocol: Protocol) -> float:
    """The longest that one iteration may take: first call, warm-up and the fewest samples within `timeout_s`."""
    return protocol.timeout_s / (1 + protocol.warmup_min_iterations + protocol.min_samples)


def check(components: Sequence[Component], request: BuildRequest) -> None:
    """Raises Unsupported where the convolutions of one iteration in fp16 would take this CPU more than
    `request.longest_iteration_s`.

    The modules are still in fp32, on the CPU; each that has convolutions is called once, to see them.
    """
    if request.precision != "fp16" or request.device != "cpu":
        return
    limit_s = request.longest_iteration_s
    needed_s, known = 0.0, dict[Convolution, float]()
    for component in components:
        for convolution in convolutions_of(component):
            if convolution not in known:
                known[convolution] = convolution.seconds_in_fp16(request.timer)
            needed_s += component.calls * known[convolution]
            if needed_s > limit_s:
                raise Unsupported(
                    "this CPU has no fast fp16 convolutions: those of one iteration would take more than "
                    f"{limit_s:.3g} s, which is what the row's timeout_s leaves for one"
                )


def convolutions_of(component: Component) -> Iterator[Convolution]:
    """The convolutions of one call, in the order of the layers."""
    import torch

    layers = [
        m for m in component.module.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d)
    ]
    if not layers:
        return
    seen: list[Convolution] = []

    def note(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(
            Convolution(
                images=tuple(inputs[0].shape),
                weights=tuple(layer.weight.shape),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
            )
        )

    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(note).remove)
        component.module(*component.inputs)
    yield from seen
