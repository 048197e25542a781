"""What does not depend on the machine: parameters, and how often one iteration calls its networks."""

from __future__ import annotations

from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.types import Metric

PARAMETERS = Metric(
    name="parameters",
    unit="count",
    label="Parameters",
    better=None,
    kind="exact",
    description="learned parameters of all networks of the workload, each counted once",
    summary="last",
)
CALLS = Metric(
    name="model_calls",
    unit="count",
    label="Model calls",
    better="lower",
    kind="exact",
    description="calls of all networks in one iteration, counted while it ran: a 20-step sampler calls its denoiser "
    "20 times",
    summary="last",
)


@probe("counts", order=70, metrics=(PARAMETERS, CALLS))
def counts(trial: Trial) -> Findings:
    """The parameters from the work identity, and the calls that were counted in all iterations so far."""
    counter = trial.counter
    calls = {name: count / counter.iterations for name, count in counter.calls.items()}
    return Findings(
        samples={
            "parameters": [float(sum(trial.workload.identity["parameters"].values()))],
            "model_calls": [float(sum(calls.values()))],
        },
        facts={"calls_per_iteration": calls, "iterations": counter.iterations},
    )
