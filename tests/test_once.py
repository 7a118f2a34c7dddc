"""Work is done once for its settings, and again when it was not finished."""

import json

import pytest

from bcos_hf.training import done_once, earlier_result, own_folder


def test_done_once(tmp_path):
    folder, calls = tmp_path / "deep" / "work", []

    def work():
        calls.append(1)
        (folder / f"result-{len(calls)}").write_text("x")

    for settings, times in (({"seed": 0}, 1), ({"seed": 0}, 1), ({"seed": 1}, 2), ({"seed": 1}, 2)):
        assert done_once(folder, settings, work) == folder and len(calls) == times
        assert [path.name for path in folder.glob("result-*")] == [f"result-{times}"]


def test_what_failed_is_done_again(tmp_path):
    def fail():
        (tmp_path / "work" / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done_once(tmp_path / "work", {}, fail)
    done_once(tmp_path / "work", {}, lambda: None)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {".made_by_bcos_hf", "settings.json"}


def test_an_earlier_result_counts_under_the_same_settings_only(tmp_path):
    file = tmp_path / "metrics.json"
    assert earlier_result(file, {"seed": 0}) is None
    file.write_text(json.dumps({"accuracy": 0.5, "settings": {"seed": 0}}))
    assert earlier_result(file, {"seed": 0})["accuracy"] == 0.5 and earlier_result(file, {"seed": 1}) is None


@pytest.mark.parametrize("name", ["thesis.tex", "settings.json", ".hidden", "config.json"])
def test_a_folder_that_was_not_made_here_is_never_emptied(tmp_path, name):
    (tmp_path / name).write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        for refused in (lambda: done_once(folder, {"seed": 1}, lambda: None), lambda: own_folder(folder)):
            with pytest.raises(FileExistsError, match="Nothing was changed"):
                refused()
    with pytest.raises(FileExistsError, match=name):
        done_once(tmp_path / name, {}, lambda: None)
    assert {path.name for path in tmp_path.iterdir()} == {name, "link"}


def test_damaged_records_mean_that_the_work_is_done_again(tmp_path):
    done_once(tmp_path / "work", {}, lambda: None)
    for content in ("", "{", "[]"):
        (tmp_path / "work" / "settings.json").write_text(content)
        done_once(tmp_path / "work", {}, (tmp_path / "work" / "again").touch)
        assert (tmp_path / "work" / "again").exists() and earlier_result(tmp_path / "work" / "settings.json", {}) is None
