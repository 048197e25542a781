"""DiT, class-conditional latent diffusion with a transformer (Peebles, Xie 2022), in diffusers' DiTPipeline.

`weights` is "random" (the bundled configuration), "pretrained" (XL/2 alone is published in this format) or a
`save_pretrained` folder. diffusers' layout has an embedder in every block; random weights share one, as in the
original, so that the count is the published one (`architectures.share_embedder`).
"""

from __future__ import annotations

from benches.models import architectures, folders
from benches.models.stable_diffusion import UNGUIDED, load
from harness.registry import MODELS
from harness.types import Case, Workload

LABELS = (207, 360, 387, 974, 88, 979, 417, 279)  # ImageNet classes, those of the original's sample script


def build(case: Case) -> Workload:
    """The workload of a DiTPipeline over `LABELS` in turn, modulo the number of classes that its weights have."""
    from benches.models.pipelines import dit_workload

    pipeline, weights_hash = load(case)
    classes = pipeline.transformer.config.num_embeds_ada_norm
    return dit_workload(pipeline, case, [label % classes for label in LABELS], weights_hash)


def _register(name: str, size: str) -> None:
    published = architectures.read(name)["hub"] is not None
    count = architectures.read(name)["networks"]["transformer"]["parameters"]
    MODELS.add(
        name,
        family="DiT",
        description=f"{size}, 256 px: transformer {count / 1e6:,.1f} M, VAE 84 M",
        axes={"image_size": 256, "scheduler": "dpmpp_2m", "num_steps": 30, "guidance_scale": 4.0},
        weights=("random", "pretrained", "folder") if published else ("random", "folder"),
        parameters=architectures.parameters(name),
        folder_axes=folders.pipeline_axes,
        unguided_up_to=UNGUIDED,
    )(build)


_register("dit_s_2", "DiT-S/2")
_register("dit_b_2", "DiT-B/2")
_register("dit_l_2", "DiT-L/2")
_register("dit_xl_2", "DiT-XL/2")
