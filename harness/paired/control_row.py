"""The name of the A/A control among the rows of a paired run. It stands apart from the records of the run, so that the
sentences of reasons can name the control without importing what measures."""

from __future__ import annotations

from typing import Final

COPY: Final = "A/A"
