"""Only the same run is gone on with, from the last checkpoint that is all there."""

import json
import shutil

import pytest
import torch
from conftest import batch_of, tiny
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from bcos_hf import bcosify
from bcos_hf.training import BcosTrainer, ModelArguments, train_and_test
from bcos_hf.training.run_record import RUN, amiss, last_whole_checkpoint
from bcos_hf.training.text import _positions


IDS = batch_of("bert")["input_ids"]
ROWS = [{"input_ids": IDS[0], "labels": i % 3} for i in range(16)]


def trainer_of(folder, fields=None, settings=None, **given):
    args = {
        "max_steps": 4,
        "save_steps": 1,
        "save_strategy": "steps",
        "do_train": True,
        "report_to": "none",
        "use_cpu": True,
    } | given
    torch.manual_seed(0)
    model = bcosify(tiny("bert"), **(fields or {})).float()
    args = TrainingArguments(str(folder), disable_tqdm=True, per_device_train_batch_size=2, **args)
    return BcosTrainer(model, args, train_dataset=ROWS, settings=settings)


def trained(folder, *args, **given):
    trainer = trainer_of(folder, *args, **given)
    train_and_test(trainer, {})
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    trained(folder)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "out")


def same_weights(first, second):
    first, second = (load_file(folder / "model.safetensors") for folder in (first, second))
    return all(torch.equal(value, second[name]) for name, value in first.items())


OTHERS = [
    ({"given": {"learning_rate": 1e-3}}, "learning_rate: 5e-05 there, 0.001 now"),
    ({"given": {"seed": 7}}, "seed: 42 there, 7 now"),
    ({"given": {"max_steps": 3}}, "max_steps: 4 there, 3 now"),
    ({"fields": {"b": 1.25}}, "config.b: 1.5 there, 1.25 now"),
    ({"fields": {"keep_biases": True}}, "config.keep_biases: false there, true now"),
]


@pytest.mark.parametrize("other, message", OTHERS)
def test_other_settings_are_refused_by_name_with_both_values(other, message, run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    trainer = trainer_of(run, other.get("fields"), **other.get("given", {}))
    with pytest.raises(ValueError, match=message):
        train_and_test(trainer, {})
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    for checkpoint in run.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(ValueError, match=message):  # the model that was trained there is not lost either
        train_and_test(trainer, {})


def test_settings_of_a_recipe_are_compared(tmp_path):
    trained(tmp_path, settings=[ModelArguments(b=1.5)], max_steps=1)
    other = trainer_of(tmp_path, settings=[ModelArguments(b=1.5, conventional=True)], max_steps=1)
    with pytest.raises(ValueError, match="conventional: false there, true now"):
        train_and_test(other, {})
    train_and_test(
        trainer_of(tmp_path, settings=[ModelArguments(b=1.5, explain_samples=2)], max_steps=1, logging_steps=1), {}
    )


def test_a_longer_run_goes_on_and_a_new_one_can_be_asked_for(run):
    assert trained(run, max_steps=5).state.global_step == 5
    assert trained(run, max_steps=2, seed=3, resume_from_checkpoint="false").state.global_step == 2


@pytest.mark.parametrize("broken", ["optimizer.pt", "model.safetensors", "trainer_state.json", RUN])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_broken_checkpoint_is_passed_over(broken, how, run, whole, caplog):
    file = run / "checkpoint-4" / broken
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    assert amiss(run / "checkpoint-4") and last_whole_checkpoint(run).name == "checkpoint-3"
    assert "checkpoint-4: passed over" in caplog.text
    trainer = trained(run)
    assert trainer.state.global_step == 4 and amiss(run / "checkpoint-4") is None
    assert "goes on from" in caplog.text and same_weights(run, whole)


def test_killed_anywhere_it_ends_with_the_same_weights(whole, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    calls, at = [0], [0]

    def stopping(function):
        def called(*args, **kwargs):
            calls[0] += 1
            if calls[0] == at[0]:
                raise Killed
            return function(*args, **kwargs)

        return called

    for name in ("_save_optimizer_and_scheduler", "_save_rng_state", "training_step", "save_model"):
        monkeypatch.setattr(BcosTrainer, name, stopping(getattr(BcosTrainer, name)))
    monkeypatch.setattr("bcos_hf.training.trainer.record", stopping(BcosTrainer._save.__globals__["record"]))
    for step in (3, 4, 5, 6, 7):
        calls[0], at[0] = 0, step
        with pytest.raises(Killed):
            trained(tmp_path / "out")
    at[0] = 0
    assert trained(tmp_path / "out").state.global_step == 4
    assert same_weights(tmp_path / "out", whole)


def test_older_checkpoints_are_deleted_when_the_new_one_is_whole(tmp_path):
    trained(tmp_path, save_total_limit=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    assert json.loads((tmp_path / RUN).read_text())["settings"]["seed"] == 42


def test_a_checkpoint_with_other_tensors_is_refused(run):
    state = load_file(run / "checkpoint-4" / "model.safetensors")
    state["classifier.other"] = state.pop("classifier.weight")
    save_file(state, run / "checkpoint-4" / "model.safetensors", {"format": "pt"})
    (run / "checkpoint-4" / RUN).unlink()  # of a checkpoint that another trainer made, nothing is known
    with pytest.raises(OSError, match=r"1 missing \(classifier.weight\) and 1 unexpected \(classifier.other\)"):
        trainer_of(run, max_steps=5).train(resume_from_checkpoint=str(run / "checkpoint-4"))


def test_positions_are_those_that_a_text_may_have(text_family):
    model = tiny(text_family)
    assert _positions(model.config) == 40 - (2 if text_family == "roberta" else 0)
