"""The report: an experiment's models are trained once, measured, put into tables, and claims are judged by the numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import EMBEDDERS, TINY
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bcos_hf.baselines import BASELINES
from bcos_hf.data import prompts_of
from bcos_hf.metrics import ZeroShotClassifier, class_embeddings
from bcos_hf.models.modeling_dual_encoder import DualEncoderModel
from bcos_hf.reporting import Experiment, experiment_page, judged, plot_experiment, results_page, run_experiment
from bcos_hf.reporting import runs as reporting_runs
from bcos_hf.reporting.claims import KINDS
from bcos_hf.reporting.explainers import explainers_of
from bcos_hf.reporting.subjects import PictureSubject, TextSubject


RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny BERT, two classes of texts that one word tells apart, and an experiment."""
    folder = tmp_path_factory.mktemp("report")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "plot", "a", "the"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "model")
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    transformers.set_seed(0)
    transformers.BertModel(transformers.BertConfig(**{**TINY, **sizes})).save_pretrained(folder / "model")
    texts = [(word, f"{article} {word} {noun}") for word in ("good", "bad") for noun in ("film", "plot") for article in ("a", "the")]
    rows = [{"text": text, "label": word, "why": [word]} for word, text in texts] * 8
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = dict(
        model_name_or_path=str(folder / "model"), learning_rate=0.01, max_steps=60, per_device_train_batch_size=16, do_train=True, use_cpu=True,
        report_to="none", save_strategy="no", eval_strategy="steps", eval_steps=30, dataloader_pin_memory=False, max_length=16,
        **{f"{split}_file": str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")},
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    experiment = dict(
        title="Good and bad", remark="Toy words.",
        task="text", recipe="recipe.yaml", seeds=[0, 1],
        models={"plain": {"conventional": True}, "bcos": {"b": 1.25}, "given": {"conventional": True, "do_train": False}},
        explainers={"bcos": ["bcos"], "plain": ["input_x_gradient", {"integrated_gradients": {"steps": 3}}, "random"]},
        measures={"faithfulness": {"count": 16}, "sequence_pointing_game": {"judge": "plain", "count": 4}, "human_rationales": {"column": "why", "count": 16},
                  "completeness": {"count": 8}, "cost": {"count": 2}, "seed_stability": {"count": 8},
                  "randomisation": {"count": 8, "parts": ["classifier", "bert"]}},
        claims=[
            dict(paper="p", claim="as accurate", kind="accuracy_within", of="bcos", against="plain", points=1.0),
            dict(paper="p", claim="more faithful", kind="beats_all_posthoc", measure="sufficiency", of="bcos", against="plain"),
            dict(paper="p", claim="quick", kind="steps_at_most", of="bcos", against="plain", share=1.0),
        ],
    )  # fmt: skip
    (folder / "small.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
    return folder


def test_an_experiment_is_run_once_and_its_page_says_what_was_measured(files, monkeypatch):
    experiment = Experiment.read(files / "small.yaml")
    result = json.loads(json.dumps(run_experiment(experiment, files / "out")))
    for run in result["runs"].values():
        assert run["accuracy"]["plain"] == 1 and [step for step, _ in run["history"]["bcos"]] == [30, 60]
        assert run["accuracy"]["given"] < 1 and run["history"]["given"] == []
        assert run["explanations"]["bcos"]["bcos"]["comprehensiveness"]["n"] == 16
        assert run["explanations"]["bcos"]["bcos"]["token_f1"] == {**run["explanations"]["bcos"]["bcos"]["token_f1"], "mean": 1.0, "n": 16}  # one word tells
        assert set(run["explanations"]["plain"]) == {"input_x_gradient", "integrated_gradients", "random"}
        exact, rest = (run["explanations"][model][name]["relative_residual"] for model, name in (("bcos", "bcos"), ("plain", "input_x_gradient")))
        assert 0 <= exact["mean"] < 1e-5 < rest["mean"] and exact["n"] == 8
        assert run["explanations"]["bcos"]["bcos"]["cost_in_forward_passes"]["mean"] > 0
        memory = [run["explanations"]["plain"][name]["memory_in_forward_passes"] for name in ("integrated_gradients", "random")]
        assert memory[0]["mean"] > 1 and memory[0]["n"] == 2
        for measure in ("seed_stability", "randomised_bert"):  # between maps that know nothing of each other
            assert abs(run["explanations"]["plain"]["random"][measure]["mean"]) < 0.9 and -1 <= run["explanations"]["bcos"]["bcos"][measure]["mean"] <= 1
    page, claims = experiment_page(result), results_page([result], [{"paper": "q", "claim": "large", "why": "no data"}])
    assert "| plain | 1.000 (1.000 to 1.000) |" in page and "| plain | integrated_gradients |" in page and "| bcos | bcos |" in page
    first = [run["explanations"]["bcos"]["bcos"]["comprehensiveness"] for run in result["runs"].values()]
    mean, low, high = sum(made["mean"] for made in first) / 2, min(made["low"] for made in first), max(made["high"] for made in first)
    assert f"| bcos | bcos | {mean:.3f} ({low:.3f} to {high:.3f}) |" in page and "bootstrap intervals. Toy words." in page
    assert "| p | as accurate |" in claims and "not tested: no data" in claims
    *panels, curves = plot_experiment(result, files / "small.png").axes
    titles = ["comprehensiveness", "sufficiency", "sequence pointing game", "token f1", "iou f1", "auprc", "relative residual", "cost in forward passes"]
    titles += ["memory in forward passes"]
    assert [panel.get_title() for panel in panels] == [*titles, "seed stability", "randomised classifier", "randomised bert"] and len(curves.lines) == 2
    lengths = [bar.get_width() for bar in panels[0].patches]  # one a row, the mean of the seeds
    assert lengths[0] == pytest.approx(sum(run["explanations"]["bcos"]["bcos"]["comprehensiveness"]["mean"] for run in result["runs"].values()) / 2)
    assert len(lengths) == 4 and (files / "small.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_experiment({"name": "n", "runs": {"0": {"explanations": {}, "history": {"m": [[1, 0.5]]}}}})
    nothing = reporting_runs.TASKS["text"]._replace(trainer=None, subject=None)  # nothing is trained or measured again
    monkeypatch.setitem(reporting_runs.TASKS, "text", nothing)
    assert json.loads(json.dumps(run_experiment(experiment, files / "out")))["runs"] == result["runs"]


def test_a_few_items_are_of_all_classes_where_a_data_set_is_sorted_by_them(files, tmp_path):
    rows = [json.dumps({"text": f"a {word} film", "label": word}) for word in ("bad", "good") for _ in range(40)]
    (tmp_path / "sorted.jsonl").write_text("\n".join(rows))
    experiment = Experiment.read(files / "small.yaml")
    experiment = replace(experiment, recipe={**experiment.recipe, "test_file": str(tmp_path / "sorted.jsonl")})
    made = [TextSubject("bcos", files / "model", reporting_runs.settings_of(experiment, "bcos", 0, tmp_path / "x"), seed, "cpu", dict) for seed in (0, 1)]
    batches = [next(iter(subject.batches(12))) for subject in made]
    assert set(batches[0][1].tolist()) == {0, 1} and torch.equal(batches[0][1], batches[1][1])
    assert sorted(made[0].texts) == sorted(json.loads(row)["text"] for row in rows)
    pictures = PictureSubject("bcos", files / "model", (), 0, "cpu", dict)
    pictures.inputs = {"test": [{"pixel_values": torch.full((3, 2, 2), float(i)), "labels": i // 40} for i in range(80)]}
    inputs, labels = next(iter(pictures.batches(12)))
    assert set(labels.tolist()) == {0, 1} and ((inputs["pixel_values"][:, 0, 0, 0] >= 40).long() == labels).all()


def test_a_clip_is_compared_with_its_teacher_by_prompts(files, tmp_path):
    """The teacher's accuracy and one of its intervals are computed here once more, by hand."""
    torch.manual_seed(0)
    sizes = EMBEDDERS["dual_encoder"]
    text = dict(sizes["text_config"], vocab_size=TINY["vocab_size"])
    towers = [transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config)) for config in (sizes["vision_config"], text)]
    teacher = DualEncoderModel.from_towers(*towers, projection_dim=8)
    for part in (teacher, transformers.AutoTokenizer.from_pretrained(files / "model"), CLIPImageProcessorPil(size=16, crop_size=16)):
        part.save_pretrained(tmp_path / "teacher")
    noise, names = np.random.default_rng(0), ["bad", "film", "good", "plot"]
    for split in ("train", "validation", "test"):
        for name in names:
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "pictures" / split / name / f"{i}.png")
    recipe = dict(
        teacher=str(tmp_path / "teacher"), dataset_name=str(tmp_path / "pictures"), eval_dataset_name=str(tmp_path / "pictures"), image_size=16,
        do_train=True, max_steps=2, per_device_train_batch_size=8, use_cpu=True, report_to="none", save_strategy="no", eval_strategy="no",
        dataloader_pin_memory=False,
    )  # fmt: skip
    models = {"teacher": {"conventional": True, "do_train": False}, "bcos": {"b": 1.5}}
    measures = {"grid_pointing_game": {"count": 1, "threshold": 0.0, "n_cells": 4}, "pixel_deletion": {"count": 3, "steps": 8}}
    explainers = {"bcos": ["bcos"], "teacher": ["input_x_gradient", "grad_cam", "occlusion"]}
    experiment = Experiment("clip", "CLIP", "clip", recipe, models, [0], explainers, measures)
    made = run_experiment(experiment, tmp_path / "out")["runs"]["0"]
    kept = transformers.AutoModel.from_pretrained(tmp_path / "out" / "teacher-0").eval()
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in kept.state_dict().items())
    assert made["accuracy"].keys() == models.keys() and made["explanations"]["bcos"]["bcos"]["pixel_deletion"]["n"] == 3
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "teacher", backend="pil")
    found = sorted(tmp_path.glob("pictures/test/*/*"))
    pixels, labels = processor([Image.open(file) for file in found], return_tensors="pt").pixel_values, [names.index(file.parent.name) for file in found]
    classes = class_embeddings(teacher, transformers.AutoTokenizer.from_pretrained(files / "model"), prompts_of(names, "one"))
    classifier = ZeroShotClassifier(teacher, classes)
    assert made["accuracy"]["teacher"] == (classifier(pixels).logits.argmax(1) == torch.tensor(labels)).float().mean().item()


def run(own, rival, accuracy=(0.8, 0.9), history=((4, 0.7), (8, 0.9))):
    found = {"input_x_gradient": {"sufficiency": {"mean": rival}}, "random": {"sufficiency": {"mean": -9.0}}}
    explanations = {"bcos": {"bcos": {"sufficiency": {"mean": own}}}, "plain": found}
    return {"accuracy": dict(zip(("bcos", "plain"), accuracy, strict=True)), "explanations": explanations, "history": {"bcos": history, "plain": [[8, 0.7]]}}


@pytest.mark.parametrize(
    ("claim", "runs", "value", "verdict"),
    [
        (dict(kind="beats_all_posthoc", measure="sufficiency"), [run(0.1, 0.2), run(0.1, 0.3)], 0.15, "holds"),
        (dict(kind="beats_all_posthoc", measure="sufficiency"), [run(0.1, 0.2), run(0.4, 0.3)], 0.0, "holds for 1 of 2 seeds"),
        (dict(kind="accuracy_within", points=0.05), [run(0, 0)], 0.1, "does not hold"),
        (dict(kind="accuracy_within", points=0.11), [run(0, 0)], 0.1, "holds"),
        (dict(kind="steps_at_most", share=0.5), [run(0, 0)], 0.5, "holds"),
        (dict(kind="steps_at_most", share=0.5), [run(0, 0, history=((4, 0.6), (8, 0.7)))], 1.0, "does not hold"),
    ],
)
def test_claims_are_judged_by_every_seed(claim, runs, value, verdict):
    claims = [dict(paper="p", claim="c", of="bcos", against="plain", **claim)]
    (made,) = judged({"experiment": {"claims": claims}, "runs": dict(enumerate(runs))})
    assert made["value"] == pytest.approx(value) and made["verdict"] == verdict
    rivals = {"beats_all_posthoc": "input_x_gradient", "steps_at_most": "plain, seen every 4 of 8 steps"}  # random is no rival
    assert made["rivals"] == [rivals.get(claim["kind"], "plain")]
    if len(runs) == 1:
        assert made["interval"] is None
    else:  # of two numbers: t of one degree of freedom is 12.706, their standard error half of what lies between them
        half = 12.7062 * abs(made["values"][0] - made["values"][1]) / 2
        assert made["interval"] == pytest.approx((value - half, value + half), abs=1e-4)


@pytest.mark.parametrize("claim", [dict(kind="beats_all_posthoc", measure="unmeasured"), dict(kind="accuracy_within", points=1, against="other")])
def test_what_was_not_measured_is_not_judged(claim):
    claims = [dict(dict(paper="p", claim="c", of="bcos", against="plain"), **claim)]
    (made,) = judged({"experiment": {"claims": claims}, "runs": {"0": run(0.1, 0.2)}})
    assert made["verdict"] == "not measured" and not made["values"]


def test_a_page_says_what_is_missing():
    runs = {"0": run(0.1, 0.2), "1": run(0.1, 0.2)}
    del runs["1"]["explanations"]["bcos"]["bcos"]["sufficiency"]
    for of_seed in runs.values():
        for named in of_seed["explanations"].values():
            for measures in named.values():
                for found in measures.values():
                    found.update(n=3, low=found["mean"] - 0.05, high=found["mean"] + 0.05)
    claims = [dict(paper="p", claim="c", of="bcos", against="plain", kind="beats_all_posthoc", measure="sufficiency")]
    machine = {"gpu": None, "cpu": "a CPU", "torch": "2"}
    page = results_page([{"name": "n", "title": "t", "remark": "", "machine": machine, "experiment": {"claims": claims}, "runs": runs}], [])
    assert "| p | c |  |  | not measured |" in page and "nan" not in page
    assert "| bcos | bcos | 0.100 (0.050 to 0.150, 1 of 2 seeds) |" in page and "| plain | input_x_gradient | 0.200 (0.150 to 0.250) |" in page


@pytest.mark.parametrize("file", sorted((RECIPES / "configs" / "report").glob("*.yaml")), ids=lambda file: file.stem)
def test_experiments_that_come_with_the_library_name_what_there_is(file, tmp_path):
    experiment = Experiment.read(file)
    experiment = replace(experiment, recipe={**experiment.recipe, "use_cpu": True})
    for seed, model in enumerate(experiment.models):
        reporting_runs.settings_of(experiment, model, seed, tmp_path / model)  # every setting is one of the recipe's
    for names in experiment.explainers.values():
        assert {next(iter(name)) if isinstance(name, dict) else name for name in names} <= {"bcos", *BASELINES}
    assert set(experiment.measures) <= set(reporting_runs.TASKS[experiment.task].measures)
    for claim in experiment.claims:
        assert claim["kind"] in KINDS and {claim["of"], claim["against"]} <= set(experiment.models)


def test_wrong_experiments_say_so(files):
    given = yaml.safe_load((files / "small.yaml").read_text())
    for changed, message in (
        ({"task": "sound"}, "expected task text or image"),
        ({"seeds": []}, "at least one seed"),
        ({"explainers": {"other": ["bcos"]}}, "explainers of models that there are not"),
        ({"colour": 1}, "unknown keys"),
    ):
        (files / "wrong.yaml").write_text(yaml.safe_dump({**given, **changed}))
        with pytest.raises(ValueError, match=message):
            Experiment.read(files / "wrong.yaml")
    with pytest.raises(ValueError, match="expected 'bcos' or one of"):
        explainers_of(["psychic"], 0, None)
    with pytest.raises(ValueError, match="unknown measures"):
        run_experiment(Experiment("n", "t", "text", {}, {"m": {}}, [0], measures={"telepathy": {}}), files / "never")
    assert not (files / "never").exists()
