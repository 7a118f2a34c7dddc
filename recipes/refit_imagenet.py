"""The ImageNet ResNet-50 becomes a B-cos network by refit alone: no label, no training, its own 1,000 classes.

    python recipes/refit_imagenet.py --photos PATH [--samples 256] [--output_dir results/demos]

PATH is a folder of photos, or a parquet file with a column of images. Four in five calibrate; the others measure. Written are
refit_resnet50_imagenet.json, .png (eight photos, explained) and, of a parquet file, _credits.txt (what its rows say of the photos);
the model itself goes to --model_dir, and is reused with the same settings.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, logging

from bcos_hf import bcosify, metrics, training
from bcos_hf.baselines import grad_cam, input_x_gradient
from bcos_hf.data import image_processor, load_pictures, prepare_images, resnet50_folder, stacked
from bcos_hf.data.images import read_parquet
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json, write_text
from bcos_hf.visualization import gradient_to_image, on_white, plot_comparison, signed_map
from bcos_hf.visualization.terminal import harmless_main


NAME, SHOWN, SMOOTH, HELD_OUT, PERIOD, BATCH = "refit_resnet50_imagenet", 8, 9, 5, 32, 16
FIELDS = {"keep_biases": False, "input_encoding": "add_inverse", "max_pool": "keep", "stride_blur": True}
PLAIN = {"keep_biases": True, "max_pool": "keep"}  # the conversion as published, its biases not yet decayed


def refitted(standard, photos: torch.Tensor, processor, settings: dict, folder: Path):
    """The B-cos twin, from `folder` if it was made with these settings, and what its refit was."""

    def make() -> None:
        start = time.process_time()
        twin = bcosify(standard, calibration=photos.split(BATCH), processor=processor, refit=settings["refit"], **settings["fields"])
        made = {"cpu_seconds": time.process_time() - start, "photos": len(photos)}
        twin.save_pretrained(folder)
        r2 = {fit["name"]: round(fit["r2"], 3) for fit in twin.conversion_report.fits}
        write_text(folder / "refit.json", json.dumps({**made, "r2": r2}))

    folder = training.done_once(folder, settings, make)
    return AutoModelForImageClassification.from_pretrained(folder).eval(), json.loads((folder / "refit.json").read_text())


def distinct(classes: torch.Tensor, confidence: torch.Tensor) -> list[int]:
    """The most confident image of each class, the most confident classes first, then the next images."""
    order = confidence.argsort(descending=True).tolist()
    return sorted(order, key=lambda i: classes[i] in classes[order[: order.index(i)]])[:SHOWN]


def figure(names: dict[int, str], standard: list, made: list, images: torch.Tensor, path: Path) -> None:
    chances = [f"{one.logits.softmax(1).max().item():.2f}" for one in made]
    titles = [f"{names[int(one.targets)].replace('_', ' ')}\n{chance}" for one, chance in zip(made, chances, strict=True)]
    colors = [on_white(gradient_to_image(one.weights[0, 0], one.contributions[0, 0], SMOOTH)) for one in made]
    before = [on_white(signed_map(one.contributions[0, 0], SMOOTH)) for one in standard]
    plot_comparison({"photo": list(images.movedim(1, -1)), "input × gradient": before, "B-cos": colors}, titles, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="photos", help="a folder, a parquet file, or a pattern of such files")
    parser.add_argument("--source", help="folder of the standard model; without, it is made of files from npm")
    parser.add_argument("--b", type=float, default=1.5)
    for name, default in (("samples", 256), ("rows_per_column", 4), ("steps", 4), ("grids", 5)):
        parser.add_argument(f"--{name}", type=int, default=default, help="photos to calibrate with, settings of the refit, grids of 2 x 2")
    parser.add_argument("--model_dir", type=Path, default=Path("outputs/refit_resnet50_imagenet"))
    parser.add_argument("--output_dir", type=Path, default=Path("results/demos"))
    args = parser.parse_args()
    logging.set_verbosity_error()
    source = args.source or resnet50_folder()
    standard = AutoModelForImageClassification.from_pretrained(source, dtype=torch.float32).eval()
    processor = saved_processor(AutoImageProcessor, source)
    rows, columns = load_pictures(args.photos)
    held = list(range(HELD_OUT - 1, len(rows), HELD_OUT))
    others = rows.select([i for i in range(len(rows)) if i not in held]).shuffle(seed=0)
    parts = {"calibration": others.take(min(args.samples, len(others))), "test": rows.select(held)}
    unit = image_processor(source, standard.config, FIELDS["input_encoding"])  # to [0, 1], not normalized
    photos = {name: stacked(part)[0] for name, part in prepare_images(parts, unit, columns).items()}
    settings = {"fields": {**FIELDS, "b": args.b}, "photos": args.photos, "samples": args.samples}
    settings["refit"] = {"rows_per_column": args.rows_per_column, "steps": args.steps}
    twin, refit = refitted(standard, photos["calibration"], processor, settings, args.model_dir)
    plain = bcosify(standard, b=args.b, **PLAIN)
    images = photos["test"]
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (processor.image_mean, processor.image_std))
    normalized = (images - mean) / std
    theirs, before, ours = (metrics.predicted_logits(*pair) for pair in ((standard, normalized), (plain, normalized), (twin, images)))
    labels, confidence = theirs.argmax(1), theirs.softmax(1).amax(1)
    grids = metrics.sample_grids(confidence.logit(), labels, 4, args.grids, threshold=0.0, predictions=ours.argmax(1))
    rivals = {"gradcam": partial(grad_cam, standard), "input_x_gradient": partial(input_x_gradient, standard), "plain_conversion": plain.explain}

    def post_hoc(explain, pixel_values, **more):
        return explain(pixel_values=(pixel_values - mean) / std, **more)

    explainers = {"bcos": twin.explain, **{name: partial(post_hoc, explain) for name, explain in rivals.items()}}
    composed = (metrics.compose_grids(images, grid[None]) for grid in grids)
    agreeing = (labels == ours.argmax(1)).nonzero()[:, 0]
    shown = agreeing[distinct(labels[agreeing], ours.softmax(1).amax(1)[agreeing])]
    seen = {name: [explain(pixel_values=image[None]) for image in images[shown]] for name, explain in explainers.items() if name != "gradcam"}
    constants = [one.constant.item() for one in seen["bcos"]]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    figure(twin.config.id2label, seen["input_x_gradient"], seen["bcos"], images[shown], args.output_dir / f"{NAME}.png")
    if args.photos.endswith(".parquet"):
        credit = read_parquet(args.photos).remove_columns(columns.image).select([held[i] for i in shown])
        lines = [", ".join(f"{key}: {value}" for key, value in row.items()) for row in credit]
        write_text(args.output_dir / f"{NAME}_credits.txt", "\n".join(lines) + "\n")
    result = {
        "agreement": {"bcos": metrics.compare_predictions(theirs, ours), "plain_conversion": metrics.compare_predictions(theirs, before)},
        "grid_pointing_game": metrics.play_grids(explainers, composed, labels[grids]),
        "constant": {"logit_bias": twin.config.logit_bias_value, "least": min(constants), "most": max(constants)},
        "lattice": {name: metrics.lattice_strength(torch.cat([one.contributions[:, 0] for one in some]), PERIOD) for name, some in seen.items()},
        "max_relative_residual": max(one.relative_residual.item() for one in seen["bcos"]),
        "refit": refit,
        "n": {"test": len(images), "grids": len(grids), "shown": len(shown)},
        "settings": settings,
    }
    write_json(args.output_dir / f"{NAME}.json", result, indent=1)


if __name__ == "__main__":
    harmless_main(main)
