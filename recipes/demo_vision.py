"""The main job on real pictures, from nothing: `make demo-vision`. Writes outputs/demo-vision/ (models, metrics.json, explanations.png).

    python recipes/demo_vision.py [--family resnet50|vit] [--output_dir outputs/demo-vision] [--seed 0]

An ImageNet ResNet-50 (or a ViT-S) learns CIFAR-10 three times with equal steps: as it is, B-cosified (its layers refitted before training), and as a B-cos
network from scratch (configs/image/demo_*.yaml). Then: accuracy on test images, and how much of each explanation lies on the right image of 2 x 2 grids, for
B-cos and for post-hoc explanations of the conventional model. What is there with the same settings is reused.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, TrainingArguments, logging

from bcos_hf import training
from bcos_hf.baselines import grad_cam, input_x_gradient, random_explanation
from bcos_hf.data import stacked
from bcos_hf.metrics import play_grid_pointing_game, predicted_logits
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json
from bcos_hf.visualization import plot_image_rows
from bcos_hf.visualization.terminal import harmless_main


CONFIGS = Path(__file__).parent / "configs" / "image"
KINDS = {
    "conventional": {"conventional": "true"},
    "bcos": {},
    "from_scratch": {"from_scratch": "true", "calibration_samples": "0", "head_first_steps": "0"},
}
GRIDS, SMOOTH, SHOWN = 50, 7, 8  # grids of 2 x 2; 7 of 96 pixels is about the published 15 of 224
THRESHOLD = 0.0  # published: 0.5, which few pictures reach after minutes of training; the most confident correct ones are still taken first


def arguments(kind: str, config: Path, folder: Path, seed: int) -> tuple:
    given = [text for name, value in KINDS[kind].items() for text in (f"--{name}", value)]
    argv = [str(config), "--output_dir", str(folder), "--seed", str(seed), *given]
    return training.parse(argv, training.ImageModelArguments, training.ImageDataArguments, TrainingArguments)


def trained(kind: str, config: Path, output: Path, seed: int):
    """The model, trained if it was not with these settings, and its test accuracy."""
    settings = {"config": training.yaml_settings(config), "kind": KINDS[kind], "seed": seed}

    def train() -> None:
        training.train_and_test(*training.image_trainer(*arguments(kind, config, output / kind, seed)))

    folder = training.done_once(output / kind, settings, train)
    return AutoModelForImageClassification.from_pretrained(folder).eval(), json.loads((folder / "all_results.json").read_text())["test_accuracy"]


def test_images(kind: str, config: Path, output: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Test images as the trained model of that kind takes them, [M, 3, H, W], and labels [M]."""
    _, data_args, training_args = arguments(kind, config, output / kind, seed)
    test = training.image_inputs(saved_processor(AutoImageProcessor, output / kind), data_args, training_args)["test"]
    return stacked(test, f"test images, {kind}")


def figure(bcos, pictures: torch.Tensor, labels: torch.Tensor, path: Path) -> float:
    """Eight test pictures that are classified correctly, of different classes where possible, explained; returns the largest relative residual."""
    right = (predicted_logits(bcos, pictures).argmax(1) == labels).nonzero()[:, 0]
    firsts = {int(labels[i]): int(i) for i in right.flip(0)}
    chosen = (list(firsts.values()) + [i for i in right.tolist() if i not in firsts.values()])[:SHOWN]
    made = bcos.explain(pictures[chosen])
    plot_image_rows(made, smooth=SMOOTH, path=path)
    return made.relative_residual.max().item()


def table(metrics: dict) -> str:
    game, accuracy = metrics["grid_pointing_game"], metrics["accuracy"]
    lines = ["| model | accuracy |", "|---|---|", *(f"| {kind} | {100 * value:.1f} % |" for kind, value in accuracy.items()), ""]
    lines += ["| explanation | grid pointing game (95 % interval) |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f}) |" for name, value in game.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["resnet50", "vit"], default="resnet50")
    parser.add_argument("--output_dir", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.set_verbosity_error()
    start, config = time.perf_counter(), CONFIGS / f"demo_{args.family}.yaml"
    output = training.own_folder(args.output_dir or Path("outputs/demo-vision" if args.family == "resnet50" else f"outputs/demo-vision-{args.family}"))
    settings = {"config": training.yaml_settings(config), "kinds": KINDS, "seed": args.seed, "grids": GRIDS, "smooth": SMOOTH, "threshold": THRESHOLD}
    done = output / "metrics.json"
    if (metrics := training.earlier_result(done, settings)) is not None:
        return print(table(metrics))
    models, accuracy = {}, {}
    for kind in KINDS:
        models[kind], accuracy[kind] = trained(kind, config, output, args.seed)
    (plain_images, labels), (bcos_images, _) = (test_images(kind, config, output, args.seed) for kind in ("conventional", "bcos"))
    plain, bcos = models["conventional"], models["bcos"]
    more = {"interpolate_pos_encoding": True} if args.family == "vit" else {}  # a grid is larger than a picture
    noise = torch.Generator().manual_seed(args.seed)  # a map of its own for every grid
    rivals = {"input_x_gradient": input_x_gradient, "gradcam": grad_cam, "random": partial(random_explanation, seed=noise)}
    if args.family == "vit":
        del rivals["gradcam"]  # it needs the last map of a CNN
    ours = {"bcos": partial(bcos.explain, return_weights=False, **more)}
    theirs = {name: partial(explain, plain, **more) for name, explain in rivals.items()}
    game = {}
    for model, chosen, images in ((bcos, ours, bcos_images), (plain, theirs, plain_images)):
        game |= play_grid_pointing_game(model, chosen, images, labels, count=GRIDS, smooth=SMOOTH, seed=args.seed, threshold=THRESHOLD)
    residuals = [game["bcos"]["max_relative_residual"], figure(bcos, bcos_images, labels, output / "explanations.png")]
    metrics = {
        "accuracy": accuracy,
        "grid_pointing_game": game,
        "max_relative_residual": max(residuals),
        "seconds": time.perf_counter() - start,
        "seed": args.seed,
        "n": {"test": len(labels), "grids": GRIDS},
        "settings": settings,
    }
    write_json(done, metrics)
    print(table(metrics))


if __name__ == "__main__":
    harmless_main(main)
