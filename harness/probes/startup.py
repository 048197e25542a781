"""What comes before the steady state, each part separately: loading, building, capturing, the first call."""

from __future__ import annotations

from harness.measuring.trial import Findings, Trial
from harness.probes import probe
from harness.reasons import Reason
from harness.types import Metric

LOAD = Metric(
    name="load_s",
    unit="s",
    label="Load",
    better="lower",
    kind="advisory",
    description="seconds to make the model and its inputs, weights read from disk or drawn at random, in a process "
    "that has torch imported",
)
BUILD = Metric(
    name="build_s",
    unit="s",
    label="Build",
    better="lower",
    kind="advisory",
    description="seconds to cast, quantise, export, compile or build an engine with a cold cache (first process of a "
    "case)",
)
BUILD_CACHED = Metric(
    name="build_cached_s",
    unit="s",
    label="Build, cached",
    better="lower",
    kind="advisory",
    description="the same if an earlier process of this case left its export or its compiled kernels",
)
CAPTURE = Metric(
    name="capture_s",
    unit="s",
    label="Capture",
    better="lower",
    kind="advisory",
    description="seconds to capture CUDA graphs after the build: the calls that warm up for it, the recording, and the "
    "replay that proves it (the build of a torch.compile mode contains its warm-up)",
)
FIRST_CALL = Metric(
    name="first_call_s",
    unit="s",
    label="First call",
    better="lower",
    kind="advisory",
    description="seconds of the first iteration after the build (neither compilation nor capture is in it)",
)


@probe("startup", order=0, metrics=(LOAD, BUILD, BUILD_CACHED, CAPTURE, FIRST_CALL))
def startup(trial: Trial) -> Findings:
    """The seconds that the worker took before the first steady iteration."""
    found, build = trial.startup, trial.build
    measured, absent = (BUILD_CACHED, BUILD) if build.cached else (BUILD, BUILD_CACHED)
    samples = {"load_s": [found.load_s], measured.name: [found.build_s], "first_call_s": [found.first_call_s]}
    why = "found_built" if build.cached else "built_anew" if build.keeps else "keeps_nothing"
    missing = {absent.name: Reason(why)}
    if found.capture_s is None:
        missing["capture_s"] = Reason("no_cuda_graphs")
    else:
        samples["capture_s"] = [found.capture_s]
    return Findings(samples=samples, missing=missing)
