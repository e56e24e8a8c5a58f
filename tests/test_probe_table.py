"""tools/probe_table: its own file of settings is true, its table says what the answers say, and it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tool_modules import load_tool

from s3prl_stream.recipes import find_recipe
from s3prl_stream.settings import tomllib


@pytest.fixture(scope="module")
def tool(repository: Path) -> Any:
    return load_tool(repository, "probe_table")


def test_its_settings_are_those_of_the_recipes(repository: Path) -> None:
    settings = tomllib.loads((repository / "tools/probe_table.toml").read_text("utf-8"))
    seven = ["tera", "mockingjay", "audio_albert", "apc", "vq_apc", "npc", "distilhubert"]
    assert list(settings["recipes"]) == seven
    for name, own in settings["recipes"].items():
        find_recipe(name).having({**settings["common"], **{key: own[key] for key in own if key != "teacher"}})
    assert set(settings["untrained"]) <= set(seven)


def test_the_table_has_a_row_for_each_kind_and_the_layer_chosen_by_validation(tool: Any) -> None:
    rows = [("logmel80", "-", 0.5, 0.0), ("tera", "last", 0.6, 0.1), ("tera", "best", 0.75, 0.0125)]
    answer = {
        "chance": 0.1,
        "rows": [dict(zip(("features", "layer", "accuracy", "spread"), row, strict=True)) for row in rows],
    }
    assert tool.markdown({"digit": answer, "drink": answer}).splitlines() == [
        "| features | digit | drink |",
        "| --- | --- | --- |",
        "| chance | 10.0 % | 10.0 % |",
        "| logmel80 | 50.0 % +- 0.0 % | 50.0 % +- 0.0 % |",
        "| tera | 75.0 % +- 1.2 % | 75.0 % +- 1.2 % |",
    ]


SMALL = """
pool = ["{set}"]
hours = 0.005
seeds = 2
baselines = ["logmel80", "fbank80"]
untrained = ["tera"]
[common]
hidden_size = 16
max_batch_seconds = 6.0
crop_seconds = 1.0
[recipes.tera]
num_layers = 1
num_heads = 2
ffn_size = 16
[recipes.distilhubert]
teacher = "tera"
target_layers = [1]
target_size = 16
init_from_teacher = false
conv_size = 8
num_layers = 1
num_heads = 2
ffn_size = 16
position_kernel = 8
position_groups = 2
[[probes]]
name = "digit"
data = "{set}"
label = "digit"
test_where = "speaker == 'hugh'"
"""


@pytest.mark.slow
def test_the_whole_of_it_on_the_sample_and_again(
    tool: Any,
    sample_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(set=sample_set), "utf-8")
    monkeypatch.setattr(sys, "argv", ["probe_table", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out")])
    assert tool.main() == 0
    shown = capsys.readouterr()
    names = [line.split(" | ")[0] for line in shown.out.splitlines()]
    assert names == [
        *("| features", "| ---", "| chance", "| logmel80", "| fbank80"),
        *("| tera, untrained", "| tera", "| distilhubert"),
    ]
    assert shown.err.count("3 steps") == 4  # two recipes, two seeds
    table = json.loads((tmp_path / "out/table.json").read_text("utf-8"))
    assert table["answers"]["digit"]["seeds"] == 2
    assert tool.main() == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (shown.out, "")
