"""Turn a pretrained text encoder into a B-cos LM and fine-tune it as a classifier.

    python recipes/bcosify_text_classification.py recipes/configs/text/vader.yaml [--b 1.25 ...]
    accelerate launch recipes/bcosify_text_classification.py recipes/configs/text/imdb.yaml
    ... --conventional true      # the ordinary model with the same settings

Any Hub data set (--dataset_name) or local csv, parquet, json (--train_file). An interrupted run goes on from its last checkpoint.
"""

import sys

from transformers import TrainingArguments

from bcos_hf.training import DataArguments, ModelArguments, parse, text_trainer, train_and_test
from bcos_hf.visualization.terminal import harmless_main


def main() -> None:
    trainer, tokens = text_trainer(*parse(sys.argv[1:], ModelArguments, DataArguments, TrainingArguments))
    metrics = train_and_test(trainer, tokens)
    if trainer.is_world_process_zero():
        print(f"test accuracy {metrics['test_accuracy']:.4f}, saved to {trainer.args.output_dir}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    harmless_main(main)
