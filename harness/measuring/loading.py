"""Builds a case's workload: seeded, with its own copy of the networks, identified by a hash of the loaded weights.

A row and its fp32 reference are both loaded here, so that they differ only in what the row requests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from harness import registry
from harness.measuring import content_hashes
from harness.measuring.module_copies import private
from harness.measuring.repeatability import private_batch
from harness.types import Case, Workload


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """`workload` has its own modules and batch. `weights_hash` covers the values that were loaded, and is part of the
    work identity. `weights_source` is the model's own name for them (a hub commit, a folder's hash)."""

    workload: Workload
    weights_hash: str
    weights_source: str | None


def built(case: Case) -> Workload:
    """The model's workload for the case, built after seeding all random generators. Raises what the model raises."""
    import numpy as np
    import torch

    torch.manual_seed(case.seed)
    random.seed(case.seed)
    np.random.seed(case.seed)
    return registry.built(case)


def own(workload: Workload) -> Loaded:
    """The workload with networks and a batch that it shares with no other row. Where its identity does not give the
    parameters of the networks, they are counted. Raises SharedModule."""
    source = workload.identity.get("weights_hash")
    components = private(workload.components)
    found = content_hashes.weights_hash(components)
    counted = {c.name: sum(p.numel() for p in c.module.parameters()) for c in components}
    identity = {"parameters": counted, **workload.identity, "weights_hash": found}
    mine = replace(workload, components=components, batch=private_batch(workload.batch), identity=identity)
    return Loaded(workload=mine, weights_hash=found, weights_source=None if source is None else str(source))
