"""Zero-shot classification of a B-cos CLIP beside its teacher on a labelled data set, and a linear probe on both.

    python recipes/evaluate_clip.py --model outputs/bcos-clip --teacher openai/clip-vit-base-patch32 --dataset_name cifar10 [--templates cifar10]
        [--output_dir outputs/evaluate_clip] [--max_eval_samples 1000] [--probe_samples 2000]

Writes one JSON file a data set: top-1, top-5 and per-class accuracy, and that of the probe; a file that is there is not made again.
"""

import argparse
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

from bcos_hf.data import image_processor, load_image_dataset, prepare_images, prompts_of, stacked
from bcos_hf.metrics import class_embeddings, image_embeddings, linear_probe_accuracy, zero_shot_accuracy
from bcos_hf.models.bcos_processors import saved_processor
from bcos_hf.models.bcos_writing import write_json
from bcos_hf.training import load_teacher, text_side
from bcos_hf.visualization.terminal import harmless_main


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--teacher", required=True, help="also gives the text embeddings, tokenizer and image processor")
    parser.add_argument("--dataset_name", required=True, help="Hub id, folder or 'cifar10'")
    parser.add_argument("--templates", default="one")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/evaluate_clip"))
    parser.add_argument("--max_eval_samples", type=int, default=None)
    parser.add_argument("--probe_samples", type=int, default=0, help="training pictures of the linear probe; 0: no probe")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    path = args.output_dir / f"{Path(args.dataset_name).name}.json"
    if path.exists():
        return print(f"{path} is there: {path.read_text()}")
    data, columns = load_image_dataset(
        args.dataset_name, max_train_samples=max(1, args.probe_samples), max_eval_samples=args.max_eval_samples, seed=args.seed
    )  # fmt: skip
    names = data["train"].features[columns.label].names
    teacher = load_teacher(args.teacher)
    processor = image_processor(args.teacher, getattr(teacher.config, "vision_config", teacher.config))
    inputs = prepare_images(data, processor, columns)
    classes = class_embeddings(teacher, saved_processor(AutoTokenizer, text_side(args.teacher)), prompts_of(names, args.templates))
    test, train = stacked(inputs["test"], "test pictures"), stacked(inputs["train"], "train pictures") if args.probe_samples else None
    result = {"dataset": args.dataset_name, "templates": args.templates, "classes": names, "n_test": len(test[1]), "seed": args.seed, "zero_shot": {}}
    for name, model in (("teacher", teacher), ("bcos", AutoModel.from_pretrained(args.model).eval())):
        embeds = image_embeddings(model, test[0])
        result["zero_shot"][name] = zero_shot_accuracy(embeds, classes, test[1])
        if train is not None:
            result.setdefault("linear_probe", {})[name] = linear_probe_accuracy((image_embeddings(model, train[0]), train[1]), (embeds, test[1]))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    print(path.read_text())


if __name__ == "__main__":
    harmless_main(main)
