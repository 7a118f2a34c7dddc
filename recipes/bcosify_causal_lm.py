"""Turn a pretrained GPT-2 or Llama into a B-cos LM and go on training it on running text.

    accelerate launch recipes/bcosify_causal_lm.py recipes/configs/text/gpt2_openwebtext.yaml [--b 1.1 ...]
    ... --conventional true      # the ordinary model with the same settings

Any Hub data set of texts (--dataset_name) or local txt, csv, parquet, json (--train_file). An interrupted run goes on from its last checkpoint.
"""

import math
import sys

from transformers import TrainingArguments

from bcos_hf.training import CausalModelArguments, RunningTextArguments, causal_lm_trainer, parse, train_and_test
from bcos_hf.visualization.terminal import harmless_main


def main() -> None:
    trainer, blocks = causal_lm_trainer(*parse(sys.argv[1:], CausalModelArguments, RunningTextArguments, TrainingArguments))
    metrics = train_and_test(trainer, blocks)
    if trainer.is_world_process_zero():
        found = f"test perplexity {math.exp(metrics['test_loss']):.3f}, accuracy of the next token {metrics['test_accuracy']:.4f}"
        print(f"{found}, saved to {trainer.args.output_dir}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    harmless_main(main)
