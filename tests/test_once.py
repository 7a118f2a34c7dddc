"""Work is done once for its settings, and again when it was not finished."""

import json

import pytest

from bcos_hf.training import done_once, earlier_result


def test_done_once(tmp_path):
    folder, calls = tmp_path / "deep" / "work", []

    def work():
        calls.append(1)
        folder.mkdir(parents=True)
        (folder / f"result-{len(calls)}").write_text("x")

    for settings, times in (({"seed": 0}, 1), ({"seed": 0}, 1), ({"seed": 1}, 2), ({"seed": 1}, 2)):
        assert done_once(folder, settings, work) == folder and len(calls) == times
        assert [path.name for path in folder.glob("result-*")] == [f"result-{times}"]


def test_what_failed_is_done_again(tmp_path):
    def fail():
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done_once(tmp_path / "work", {}, fail)
    done_once(tmp_path / "work", {}, lambda: None)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["settings.json"]


def test_an_earlier_result_counts_under_the_same_settings_only(tmp_path):
    file = tmp_path / "metrics.json"
    assert earlier_result(file, {"seed": 0}) is None
    file.write_text(json.dumps({"accuracy": 0.5, "settings": {"seed": 0}}))
    assert earlier_result(file, {"seed": 0})["accuracy"] == 0.5 and earlier_result(file, {"seed": 1}) is None
