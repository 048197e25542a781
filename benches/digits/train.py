"""Train all stored weights of the digits models again, from the scans that scikit-learn contains, seeded, on a CPU.

Two processes with one thread each train the two generators at the same time. With one thread a run is reproducible and
less affected by other processes. The number of steps is fixed, not the time. On two cores that other work used too, the
stored run took 270 s (dit) and 407 s (sd) of one core, after about five minutes for the other models:

    python -m benches.digits.train
    python -m benches.digits.train --only vit --out /tmp/digits
    python -m benches.digits.train --share 0.01 --out /tmp/digits     # a hundredth of the steps, to check that it runs

The script writes vit/, extractor/, dit/, sd/ and vae/; both generators contain a copy of vae/. If all five exist, it
also measures the quality and writes the model card README.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

from benches.digits import models
from benches.digits.training_steps import STEPS, steps_of

SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what `--only` names, in order, then measure. An unknown name ends the program with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m benches.digits.train", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(STEPS), help="some of " + ",".join(STEPS))
    parser.add_argument("--out", type=Path, default=models.WEIGHTS, help="the weights folder")
    parser.add_argument("--share", type=float, default=1.0, help="share of the steps and of the jittered copies")
    parser.add_argument("--images", type=int, default=200, help="images per row of the model card")
    parser.add_argument("--steps", type=int, nargs="+", default=[3, 5, 10, 20], help="sampling steps in the model card")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    names = given.only.split(",")
    if unknown := set(names) - set(STEPS):
        parser.error(f"unknown model: {', '.join(sorted(unknown))}")
    for group in (["vit", "extractor", "vae"], ["dit", "sd"]):
        train_side_by_side([name for name in group if name in names], given.out, given.share, given.seed)
    if all((given.out / name).is_dir() for name in STEPS):
        from benches.digits import card

        with models.one_thread():
            card.write(given.out, given.share, given.seed, given.images, given.steps)


def train_side_by_side(names: Sequence[str], out: Path, share: float, seed: int) -> None:
    """Train each of `names` in its own process. Raises RuntimeError, which names those that failed."""
    spawn = multiprocessing.get_context("spawn")
    processes = {name: spawn.Process(target=train_one, args=(name, out, share, seed)) for name in names}
    for process in processes.values():
        process.start()
    for process in processes.values():
        process.join()
    if failed := [name for name, process in processes.items() if process.exitcode != 0]:
        raise RuntimeError(f"training failed: {', '.join(failed)}")


def train_one(name: str, out: Path, share: float, seed: int) -> None:
    """Train the model `name` for its share of the steps, on one thread, and write it into its folder."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)
    begun = time.process_time()
    steps, folder = steps_of(name, share), out / name
    folder.mkdir(parents=True, exist_ok=True)
    if name in ("vit", "extractor"):
        from benches.digits.fit_classifiers import fit_extractor, fit_vit

        network = (fit_vit if name == "vit" else fit_extractor)(steps, seed)
        stored = network.half() if name == "vit" else network
        save_file(stored.state_dict(), folder / "model.safetensors")
        if name == "vit":
            size = {"library": "timm VisionTransformer", "model_args": models.VIT}
            config = size | {"mean": models.MEAN, "std": models.STD}
            (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    elif name == "vae":
        from benches.digits.fit_autoencoder import fit_autoencoder

        fit_autoencoder(steps, seed).half().save_pretrained(folder)
    else:
        from benches.digits import fit_denoisers
        from benches.digits.fit_autoencoder import training_latents

        vae = models.build_vae()  # not by from_pretrained, which would store the path of this machine in the config
        stored_vae = load_file(out / "vae" / "diffusion_pytorch_model.safetensors")
        vae.load_state_dict({key: value.float() for key, value in stored_vae.items()})
        fit_generator = fit_denoisers.fit_dit if name == "dit" else fit_denoisers.fit_sd
        pipeline = fit_generator(vae, *training_latents(vae, share, seed), steps, seed)
        for part in ("transformer", "unet", "vae"):  # diffusers loads them as fp32 again
            if hasattr(pipeline, part):
                getattr(pipeline, part).half()  # except the text encoder, which transformers would load as fp16
        pipeline.save_pretrained(folder)
    print(f"{name}: {time.process_time() - begun:.0f} s of one core", flush=True)


if __name__ == "__main__":
    main()
