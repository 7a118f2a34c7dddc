"""The main job on real pictures, from nothing: `make demo-vision`. Writes outputs/demo-vision/ (models, metrics.json, explanations.png).

    python recipes/demo_vision.py [--family resnet50|vit] [--output_dir outputs/demo-vision] [--seed 0]

An ImageNet ResNet-50 (or a ViT-S) learns CIFAR-10 three times with equal steps: as it is, B-cosified, and as a B-cos network from scratch
(configs/image/demo_*.yaml). Then: accuracy on test pictures, and how much of each explanation lies on the right picture of 2 x 2 grids, for B-cos and for
post-hoc explanations of the conventional model. What is there with the same settings is reused.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModelForImageClassification, TrainingArguments, logging

from bcos_hf.baselines import grad_cam, input_x_gradient
from bcos_hf.metrics import bootstrap_interval, compose_grids, grid_pointing_shares, random_scores, sample_grids
from bcos_hf.training import ImageDataArguments, ImageModelArguments, done_once, image_trainer, parse, train_and_test
from bcos_hf.visualization import plot_image_rows


CONFIGS = Path(__file__).parent / "configs" / "image"
KINDS = {
    "conventional": {"conventional": "true"},
    "bcos": {},
    "from_scratch": {"from_scratch": "true", "use_bias": "false", "bias_decay": "false", "b_schedule": "immediate"},
}
GRIDS, SMOOTH, SHOWN = 50, 7, 8  # grids of 2 x 2; 7 of 96 pixels is about the published 15 of 224


def arguments(kind: str, config: Path, folder: Path, seed: int) -> tuple:
    given = [text for name, value in KINDS[kind].items() for text in (f"--{name}", value)]
    argv = [str(config), "--output_dir", str(folder), "--seed", str(seed), *given]
    return parse(argv, ImageModelArguments, ImageDataArguments, TrainingArguments)


def trained(kind: str, config: Path, output: Path, seed: int):
    """The model, trained if it was not with these settings, and its test accuracy."""
    settings = {"config": config.read_text(encoding="utf-8"), "kind": KINDS[kind], "seed": seed}

    def train() -> None:
        train_and_test(*image_trainer(*arguments(kind, config, output / kind, seed)))

    folder = done_once(output / kind, settings, train)
    return AutoModelForImageClassification.from_pretrained(folder).eval(), json.loads((folder / "all_results.json").read_text())["test_accuracy"]


def test_pictures(config: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Test pictures as the conventional model takes them, [M, 3, H, W], and labels [M]."""
    _, inputs = image_trainer(*arguments("conventional", config, Path("outputs/unused"), seed))
    rows = [inputs["test"][i] for i in tqdm(range(len(inputs["test"])), desc="test pictures")]
    return torch.stack([row["pixel_values"] for row in rows]), torch.tensor([row["labels"] for row in rows])


@torch.no_grad()
def logits_of(model, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(pixel_values=part).logits for part in tqdm(pictures.split(50), desc="predicting", leave=False)])


def pointing_game(model, explainers: dict, pictures: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[dict, float]:
    """GridPG of each explainer on grids of the model's own confident pictures, with intervals over grids; and the largest relative residual."""
    logits = logits_of(model, pictures)
    grids = sample_grids(logits.gather(1, labels[:, None])[:, 0], labels, 4, GRIDS, seed, predictions=logits.argmax(1))
    shares, residual = {name: [] for name in explainers}, 0.0
    for grid in tqdm(grids, desc="grid pointing game"):
        x = compose_grids(pictures, grid[None])
        for name, explain in explainers.items():
            made = explain(pixel_values=x, targets=labels[grid][None])
            shares[name].append(grid_pointing_shares(made.contributions, SMOOTH).mean())
            residual = max(residual, made.relative_residual.max().item())
    return {name: bootstrap_interval(torch.stack(values), seed=seed) for name, values in shares.items()}, residual


def random_explainer(model, pixel_values: torch.Tensor, targets: torch.Tensor, seed: int = 0):
    made = input_x_gradient(model, targets, pixel_values=pixel_values)
    made.contributions = random_scores(made.contributions, seed)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["resnet50", "vit"], default="resnet50")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo-vision"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    start, config = time.perf_counter(), CONFIGS / f"demo_{args.family}.yaml"
    models, accuracy = {}, {}
    for kind in KINDS:
        models[kind], accuracy[kind] = trained(kind, config, args.output_dir, args.seed)
    pictures, labels = test_pictures(config, args.seed)
    plain, bcos = models["conventional"], models["bcos"]
    rivals = {"input_x_gradient": partial(input_x_gradient, plain), "random": partial(random_explainer, plain)}
    if args.family == "resnet50":
        rivals["gradcam"] = partial(grad_cam, plain)
    ours, residual = pointing_game(bcos, {"bcos": partial(bcos.explain, return_weights=False)}, pictures, labels, args.seed)
    theirs, _ = pointing_game(plain, rivals, pictures, labels, args.seed)
    print(accuracy, ours, theirs, residual, time.perf_counter() - start, plot_image_rows)


if __name__ == "__main__":
    main()
