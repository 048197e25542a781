"""The training loop of every digits model: AdamW with warm-up and cosine decay, and a moving average of the weights.

The number of steps is fixed, so the same seed gives the same weights on the same kind of machine.

    python -m benches.digits.train --only vit
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WARM_UP = 0.04  # of the steps
REPORTS = 10  # lines of progress per model


def fit(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    loss_of_step: Callable[[], torch.Tensor],
    *,
    steps: int,
    rate: float,
    decay: float = 0.01,
    average: float = 0.998,
) -> None:
    """Train `parameters` in place on `steps` values of `loss_of_step`, then replace them by their moving average.

    `rate` is the peak learning rate, and `decay` is AdamW's weight decay. `average` is the share of the previous
    average in the moving average; it is smaller in the first steps. Prints progress and the time left. Raises
    FloatingPointError if the loss is not finite.
    """
    import torch

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    averaged = [parameter.detach().clone() for parameter in trained]
    optimiser = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=decay, fused=True)
    begun, loss_sum = time.perf_counter(), 0.0
    every = max(1, steps // REPORTS)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * rate_share(step, steps)
        loss = loss_of_step()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        previous_share = min(average, (step + 1) / (step + 10))
        torch._foreach_lerp_(averaged, [parameter.data for parameter in trained], 1 - previous_share)
        loss_sum += loss.item()
        if (step + 1) % every == 0:
            if not math.isfinite(loss_sum):
                raise FloatingPointError(f"{name}: the loss is {loss_sum} at step {step + 1}")
            left = (time.perf_counter() - begun) / (step + 1) * (steps - step - 1)
            print(f"{name}: step {step + 1}/{steps}, loss {loss_sum / every:.4f}, {left:.0f} s left", flush=True)
            loss_sum = 0.0
    for parameter, value in zip(trained, averaged, strict=True):
        parameter.data.copy_(value)


def rate_share(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at `step`: a linear rise, then half a cosine down to zero."""
    rise = max(1, int(steps * WARM_UP))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
