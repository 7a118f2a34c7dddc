"""Train, explain and measure the models of an experiment, and judge the papers' claims by it. Writes results/NAME.json and .png, and RESULTS.md.

python recipes/report.py recipes/configs/report/text_vader.yaml [...]     # trains what is not there yet; an interrupted run goes on
python recipes/report.py --page                                           # RESULTS.md and the figures alone, from results/*.json
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import yaml
from transformers import logging

from bcos_hf.models.bcos_writing import write_json, write_text
from bcos_hf.reporting import Experiment, experiment_page, plot_experiment, results_page, run_experiment
from bcos_hf.visualization.terminal import harmless_main


UNTESTED = Path(__file__).parent / "configs" / "report" / "untested.yml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path)
    parser.add_argument("--page", action="store_true", help="write RESULTS.md and the figures from the result files")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of the configs' seeds")
    parser.add_argument("--use_gpu", action="store_true", help="run a small form, whose recipe is one for the CPU, on a GPU")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/report"), help="models and measures")
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    if not args.configs and not args.page:
        parser.error("expected the YAML of an experiment, or --page")
    logging.set_verbosity_error()
    args.results.mkdir(parents=True, exist_ok=True)
    for config in args.configs:
        experiment = Experiment.read(config)
        recipe = {**experiment.recipe, "use_cpu": False} if args.use_gpu else experiment.recipe
        experiment = replace(experiment, seeds=args.seeds or experiment.seeds, recipe=recipe)
        result = run_experiment(experiment, args.output_dir / experiment.name)
        write_json(args.results / f"{experiment.name}.json", result, indent=1)
        print(experiment_page(result))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(args.results.glob("*.json"))]
    for result in results:
        plot_experiment(result, args.results / f"{result['name']}.png")
    write_text("RESULTS.md", results_page(results, yaml.safe_load(UNTESTED.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    harmless_main(main)
