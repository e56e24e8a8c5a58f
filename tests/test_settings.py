"""Settings by name: typed by their dataclasses, and a slip told with the nearest name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.settings import describe, read_assignments, read_settings_file, resolve


@dataclass(frozen=True)
class Model:
    num_layers: int = 3
    dropout: float = 0.1
    shared: bool = False
    layers: tuple[int, ...] = (4, 8)


@dataclass(frozen=True)
class Train:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    kind: Literal["linear", "constant"] = "linear"
    crop: float | None = 15.0
    where: str | None = None
    dropout: float = 0.0


SECTIONS = {"model": Model(), "train": Train()}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("model.num_layers=12", "model.num_layers", 12),
        ("num_layers = 12", "model.num_layers", 12),
        ("lr=1e-4", "train.lr", 1e-4),
        ("lr=1", "train.lr", 1),
        ("lr=.5", "train.lr", 0.5),
        ("lr=1.", "train.lr", 1.0),
        ("model.shared=true", "model.shared", True),
        ("model.shared=False", "model.shared", False),  # as Python spells it
        ("layers=4,8", "model.layers", (4, 8)),
        ("layers=[4, 12]", "model.layers", (4, 12)),
        ("betas=[0.9, 0.98]", "train.betas", (0.9, 0.98)),
        ("kind=constant", "train.kind", "constant"),
        ("crop=none", "train.crop", None),
        ("where=split == 'dev' and x = 3", "train.where", "split == 'dev' and x = 3"),
        ("where=10", "train.where", "10"),
    ],
)
def test_a_value_from_the_command_line(text: str, name: str, value: object) -> None:
    found = resolve(read_assignments([text], "train.lr=1e-3"), SECTIONS)
    assert found == {name: value}
    assert type(found[name]) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model.num_layer=12", "no setting 'model.num_layer'; did you mean model.num_layers"),
        ("num_layer=12", "no setting 'num_layer'; did you mean model.num_layers"),
        ("train.xyz=12", "no setting 'train.xyz'; there are train.lr, train.betas"),
        ("dropout=0.2", "'dropout' is in several sections: model.dropout, train.dropout"),
        ("num_layers=many", "setting model.num_layers: 'many' is not a whole number"),
        ("num_layers=1.5", "setting model.num_layers: 1.5 is not a whole number"),
        ("shared=1", "setting model.shared: 1 is not true or false"),
        ("betas=[0.9]", "setting train.betas: [0.9] is not [a number, a number]"),
        ("layers=4;8", "setting model.layers: '4;8' is not [a whole number, ...]"),
        ("kind=cubic", "setting train.kind: 'cubic' is not one of 'linear', 'constant'"),
        ("crop=wide", "setting train.crop: 'wide' is not a number or none"),
        ("lr", "--set lr: give NAME=VALUE, as in train.lr=1e-3"),
    ],
)
def test_slips(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(read_assignments([text], "train.lr=1e-3"), SECTIONS)
    assert said in str(error.value)


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('where = "a > 1"\n[model]\nnum_layers = 6\nlayers = [1]\n[train]\nlr = 2e-4\n')
    found = resolve(read_settings_file(file), SECTIONS)
    assert resolve({"train.crop": "none", "train.where": "None"}, SECTIONS) == {"train.crop": None, "train.where": None}
    assert found == {"train.where": "a > 1", "model.num_layers": 6, "model.layers": (1,), "train.lr": 2e-4}
    file.write_text("[training]\nlr = 1\n")
    with pytest.raises(UsageError, match=r"no setting .training\.lr.; did you mean train\.lr"):
        resolve(read_settings_file(file), SECTIONS)
    file.write_text("lr = \n")
    with pytest.raises(UsageError, match=r"settings\.toml: cannot be read"):
        read_settings_file(file)
    for endless in ("a = " + "[" * 5000, "a = " + "9" * 5000):
        file.write_text(endless)
        with pytest.raises(UsageError, match=r"settings\.toml: cannot be read"):
            read_settings_file(file)
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read"):
        read_settings_file(tmp_path / "none.toml")


def test_all_of_them_are_listed() -> None:
    lines = describe(SECTIONS)
    assert len(lines) == 10
    assert lines[0].split() == ["model.num_layers", "=", "3"]
    assert "train.where      = none" in lines


@pytest.mark.parametrize("value", ["9" * 5000, "-" * 100_000 + "1", "(" * 5000, "[" * 5000])
def test_values_without_end_are_text(value: str) -> None:
    with pytest.raises(UsageError, match="is not a whole number"):
        resolve(read_assignments([f"num_layers={value}"], ""), SECTIONS)
