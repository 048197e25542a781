"""How it is measured: cases, workers, timing, probes, backends, devices, storage, frames."""

from harness import wording

__all__ = ["wording"]  # imported so that every reason of this package has its sentence
