"""The models: importing this package fills `harness.registry.MODELS`, and imports neither torch nor a model library.

A model is a decorated function from a case to a workload. Its heavy imports are inside:

    @MODELS.add("my_vit", family="ViT classifier", description="...", axes={"image_size": 224})
    def my_vit(case: Case) -> Workload: ...
"""

import importlib
import pkgutil

# What models have in common; most of these modules import torch. Each other file here registers models.
SHARED = frozenset(
    {
        "architectures", "folders", "networks", "pipeline", "pipeline_border", "pipelines", "reading", "tokenizer",
        "truncation", "weights", "workloads",
    }
)  # fmt: skip

importlib.import_module("benches.schedulers")
importlib.import_module("harness.null_model")
for _module in pkgutil.iter_modules(__path__):
    if _module.name not in SHARED:
        importlib.import_module(f"{__name__}.{_module.name}")
