"""The main job on pictures and texts, from nothing: `make demo-clip`. Writes outputs/demo-clip/ (models, metrics.json, prompts.png).

    python recipes/demo_clip.py [--output_dir outputs/demo-clip] [--seed 0] [--only_teacher]

No pretrained CLIP can be had from a package registry, so the teacher is a CLIP-style model of two real pretrained towers (ImageNet ResNet-50 and
all-MiniLM-L6-v2), of which only the projections are trained, on captions made from the class names of CIFAR-10's training pictures. Its image tower is then
B-cosified by the recipe (configs/clip/demo.yaml), from pictures alone, and prompts are localised on 2 x 2 grids of test pictures. With a GPU and the
network, the same is done to a real CLIP: accelerate launch recipes/bcosify_clip.py CONFIG --teacher openai/clip-vit-base-patch32 --dataset_name ...
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, TrainingArguments, logging

from bcos_hf import training
from bcos_hf.baselines import input_x_gradient, random_explanation
from bcos_hf.data import TEMPLATES, ImageColumns, cifar10, image_processor, minilm_folder, prepare_images, prompts_of, resnet50_folder, stacked
from bcos_hf.metrics import ZeroShotClassifier, class_embeddings, image_embeddings, play_grid_pointing_game, zero_shot_accuracy
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json
from bcos_hf.models.modeling_dual_encoder import DualEncoderModel
from bcos_hf.visualization import plot_image_rows
from bcos_hf.visualization.terminal import harmless_main


CONFIG = Path(__file__).parent / "configs" / "clip" / "demo.yaml"
PAIRED, TEST, PROJECTION, SIDE = 4000, 1000, 128, 96  # pictures that teach the projections, and that test; size of the embedding; pixels
GRIDS, SMOOTH, THRESHOLD = 50, 7, 0.0  # as in demo_vision


def pictures(split: str, count: int, seed: int, processor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [count, 3, H, W] of CIFAR-10 as the models take them, and labels [count]."""
    rows = cifar10(seed=seed, **{"train": 1, "test": 1, split: count})[split]
    return stacked(prepare_images({"eval": rows}, processor, ImageColumns("image", "label"))["eval"], f"{split} pictures")


def make_teacher(folder: Path, names: list[str], seed: int) -> None:
    """Two pretrained towers and their projections, trained; saved with image processor and tokenizer."""
    torch.manual_seed(seed)
    vision, text = (AutoModel.from_pretrained(folder()) for folder in (resnet50_folder, minilm_folder))
    tokenizer = saved_processor(AutoTokenizer, minilm_folder())
    teacher = DualEncoderModel.from_towers(vision, text, projection_dim=PROJECTION)
    processor = image_processor(resnet50_folder(), vision.config, size=SIDE)
    x, labels = pictures("train", PAIRED, seed, processor)
    captions = prompts_of(names, "cifar10")
    texts = training.text_tower_features(teacher, tokenizer, [caption for of_class in captions for caption in of_class])
    text_labels = torch.arange(len(names)).repeat_interleave(len(TEMPLATES["cifar10"]))
    training.fit_projections(teacher, training.image_tower_features(teacher, x.split(50)), labels, texts, text_labels, seed=seed)
    for part in (teacher, processor, tokenizer):
        part.save_pretrained(folder)


def make_student(folder: Path, teacher: Path, seed: int) -> None:
    argv = [str(CONFIG), "--teacher", str(teacher), "--output_dir", str(folder), "--seed", str(seed)]
    trainer, inputs = training.clip_trainer(*training.parse(argv, training.CLIPArguments, training.PictureArguments, TrainingArguments))
    training.train_and_test(trainer, inputs)
    training.save_text_side(str(teacher), trainer.processing_class, folder)


def figure(student: ZeroShotClassifier, x: torch.Tensor, labels: torch.Tensor, names: list[str], path: Path) -> float:
    """One grid of four test pictures and a map for the prompt of each; returns the largest relative residual."""
    right = (student(x).logits.argmax(1) == labels).nonzero()[:, 0]
    chosen = list({int(labels[i]): int(i) for i in right.flip(0)}.items())[:4]
    grid = torch.cat([torch.cat([x[i] for _, i in chosen[row : row + 2]], dim=2) for row in (0, 2)], dim=1)[None]
    made = student.explain(grid, targets=[[label for label, _ in chosen]], prompts=[f"a photo of a {name}." for name in names])
    plot_image_rows([made.of_target(k) for k in range(4)], smooth=SMOOTH, path=path)
    return made.relative_residual.max().item()


def table(metrics: dict) -> str:
    lines = ["| model | zero-shot accuracy |", "|---|---|", *(f"| {name} | {100 * value:.1f} % |" for name, value in metrics["zero_shot_accuracy"].items()), ""]
    lines += ["| explanation of a prompt | grid pointing game (95 % interval) |", "|---|---|"]
    game = metrics["grid_pointing_game"].items()
    return "\n".join(lines + [f"| {name} | {value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f}) |" for name, value in game])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo-clip"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only_teacher", action="store_true", help="end when the teacher is made, which configs/report/clip_cifar10.yaml begins with")
    args = parser.parse_args()
    logging.set_verbosity_error()
    start, output = time.perf_counter(), training.own_folder(args.output_dir)
    sizes = {"paired": PAIRED, "test": TEST, "projection": PROJECTION, "side": SIDE, "seed": args.seed}
    settings = {"config": training.yaml_settings(CONFIG), "sizes": sizes, "game": [GRIDS, SMOOTH, THRESHOLD]}
    done = output / "metrics.json"
    if (metrics := training.earlier_result(done, settings)) is not None:
        return print(table(metrics))
    names = cifar10(seed=args.seed, train=1, test=1)["test"].features["label"].names
    teacher = training.done_once(output / "teacher", sizes, lambda: make_teacher(output / "teacher", names, args.seed))
    if args.only_teacher:
        return print(f"the teacher is in {teacher}")
    student = training.done_once(output / "bcos", settings, lambda: make_student(output / "bcos", teacher, args.seed))
    models = {"teacher": AutoModel.from_pretrained(teacher).eval(), "bcos": AutoModel.from_pretrained(student).eval()}
    x, labels = {}, None
    for name, folder in (("teacher", teacher), ("bcos", student)):  # each in its own encoding
        x[name], labels = pictures("test", TEST, args.seed, saved_processor(AutoImageProcessor, folder))
    classes = class_embeddings(models["teacher"], saved_processor(AutoTokenizer, teacher), prompts_of(names, "cifar10"))
    accuracy = {name: zero_shot_accuracy(image_embeddings(model, x[name]), classes, labels)["top1"] for name, model in models.items()}
    plain, bcos = (ZeroShotClassifier(models[name], classes) for name in ("teacher", "bcos"))
    noise = torch.Generator().manual_seed(args.seed)
    rivals = {"input_x_gradient": partial(input_x_gradient, plain), "random": partial(random_explanation, plain, seed=noise)}
    game = {}
    for name, model, explainers in (("bcos", bcos, {"bcos": partial(bcos.explain, return_weights=False)}), ("teacher", plain, rivals)):
        game |= play_grid_pointing_game(model, explainers, x[name], labels, count=GRIDS, smooth=SMOOTH, seed=args.seed, threshold=THRESHOLD)
    residuals = [game["bcos"]["max_relative_residual"], figure(bcos, x["bcos"], labels, names, output / "prompts.png")]
    metrics = {"zero_shot_accuracy": accuracy, "grid_pointing_game": game, "max_relative_residual": max(residuals), "seconds": time.perf_counter() - start}
    metrics |= {"seed": args.seed, "n": {"test": TEST, "grids": GRIDS}, "settings": settings}
    write_json(done, metrics)
    print(table(metrics))


if __name__ == "__main__":
    harmless_main(main)
