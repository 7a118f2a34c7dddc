"""Turn the image tower of a pretrained CLIP, SigLIP or dual encoder into a B-cos network, by distillation from pictures without labels.

    accelerate launch recipes/bcosify_clip.py recipes/configs/clip/vit_b32_cc3m.yaml [--b 1.5 ...]
    python recipes/bcosify_clip.py CONFIG --teacher openai/clip-vit-base-patch32 --dataset_name FOLDER
    ... --shards "cc3m/*.tar" --streaming true --max_steps N --broken_images skip      # WebDataset, each process reading its own files

With --eval_dataset_name the zero-shot accuracy on labelled pictures is measured at every evaluation. An interrupted run goes on from its last checkpoint.
Distributed: `accelerate launch --config_file recipes/configs/accelerate/ddp.yaml`, or fsdp.yaml, or two_cpus.yaml (gloo, beside --use_cpu true).
"""

import sys

from transformers import TrainingArguments

from bcos_hf.training import CLIPArguments, PictureArguments, clip_trainer, parse, save_text_side, train_and_test
from bcos_hf.visualization.terminal import harmless_main


def main() -> None:
    model_args, data_args, training_args = parse(sys.argv[1:], CLIPArguments, PictureArguments, TrainingArguments)
    trainer, inputs = clip_trainer(model_args, data_args, training_args)
    metrics = train_and_test(trainer, inputs)
    if trainer.is_world_process_zero():
        save_text_side(model_args.teacher, trainer.processing_class, trainer.args.output_dir)
        accuracy = f"zero-shot test accuracy {metrics['test_accuracy']:.4f}, " if "test_accuracy" in metrics else ""
        print(f"{accuracy}saved to {trainer.args.output_dir}")
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    harmless_main(main)
