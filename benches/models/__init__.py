"""The models: importing this package fills `harness.registry.MODELS`, and imports neither torch nor a model library.

A model is a decorated function from a case to a workload; its heavy imports stand inside it:

    @MODELS.add("my_vit", family="ViT classifier", description="...", axes={"image_size": 224})
    def my_vit(case: Case) -> Workload: ...
"""

from benches import schedulers
from benches.models import digits, dit, stable_diffusion, vit

__all__ = ["digits", "dit", "schedulers", "stable_diffusion", "vit"]
