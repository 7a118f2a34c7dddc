"""Turn a pretrained image classifier (CNN or ViT) into a B-cos network and fine-tune it, or train one from scratch.

    python recipes/bcosify_image_classification.py recipes/configs/image/cifar10_resnet50.yaml [--b 1.5 ...]
    accelerate launch recipes/bcosify_image_classification.py recipes/configs/image/resnet50_imagenet.yaml
    ... --from_scratch true      # B-cos with random weights, of the same architecture
    ... --conventional true      # the ordinary model with the same settings; both together: the ordinary model from scratch

Any Hub data set or folder of pictures (--dataset_name) or local parquet (--train_file), whole or, with --streaming true --max_steps N, without a local
copy, each process reading its own files. An interrupted run goes on from its last checkpoint.
"""

import sys

from transformers import TrainingArguments

from bcos_hf.training import ImageDataArguments, ImageModelArguments, image_trainer, parse, train_and_test
from bcos_hf.visualization.terminal import harmless_main


def main() -> None:
    trainer, inputs = image_trainer(*parse(sys.argv[1:], ImageModelArguments, ImageDataArguments, TrainingArguments))
    metrics = train_and_test(trainer, inputs)
    if trainer.is_world_process_zero():
        print(f"test accuracy {metrics['test_accuracy']:.4f}, saved to {trainer.args.output_dir}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    harmless_main(main)
