"""The page of a run."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most
from small_recipes import pretrain_small

from s3prl_stream import report as module
from s3prl_stream.cli import main
from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.recipes.s3prl_export import export_s3prl
from s3prl_stream.report import report
from s3prl_stream.trainer.losslog import read_lines, read_losses
from s3prl_stream.upstreams import upstream

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("recipe", ["tera", "distilhubert"])
def test_a_page_with_all_pictures(
    recipe: str, sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain_small(recipe, sample_set, tmp_path, steps=3, valid={"share": 0.1, "subset": "5s", "every": 2})
    valid_loss = f"{read_lines(tmp_path / 'metrics.jsonl')[-1]['valid_loss']:.4g}"
    if recipe == "distilhubert":  # a page is wanted most of a run that went wrong
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "valid_loss": null}\n')
        valid_loss = "not finite"
    assert main(["report", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    lines = read_losses(tmp_path)
    assert facts["steps"] == "3"
    assert facts["audio seen"] == f"{lines[-1]['hours_seen']:.2f} h"
    assert facts["valid_loss"] == valid_loss
    times = read_lines(tmp_path / "waits.jsonl")
    heard = sum(line["seconds"] for line in lines) / 3600
    assert facts["speed"] == f"{heard / sum(line['seconds'] for line in times):.3f} audio hours a second"
    page = (tmp_path / "report" / "index.html").read_text()
    names = re.findall(r'src="([^"]+)"', page)
    reconstructed = [f"reconstruction-{number}.png" for number in (1, 2, 3)] if recipe == "tera" else []
    assert names == ["loss.png", "rate.png", "speed.png", *reconstructed]
    assert all((tmp_path / "report" / name).read_bytes()[:4] == b"\x89PNG" for name in names)
    assert ("reconstructions" in facts) is (recipe == "distilhubert")
    assert read_settings(tmp_path)["sets"] == [str(sample_set)]


def test_a_run_is_exported_on_the_command_line(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain_small("tera", sample_set, tmp_path / "run", steps=1)
    words, file = ["export", str(tmp_path / "run")], tmp_path / "s3prl" / "tera.ckpt"
    assert main([*words, str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: a checkpoint for S3PRL, which takes it by -k\n"
    wavs = [torch.linspace(-1, 1, 8000).sin()]
    torch.testing.assert_close(upstream(file)(wavs), upstream(tmp_path / "run")(wavs))
    before = file.read_bytes()
    with files_of_at_most(5000):
        assert main([*words, str(file)]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert (file.read_bytes(), list(file.parent.iterdir())) == (before, [file])
    assert main([*words, str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder; give the file" in capsys.readouterr().err


def test_a_run_of_train_has_no_reconstructions(sample_set: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"task": "ks"}')
    (tmp_path / "losses.jsonl").write_text(
        '{"step": 1, "loss": null, "lr": 0.1, "grad_norm": 1.0, "applied": true, "seconds": 1.0, "hours_seen": 0.1}\n'
    )
    facts = report(tmp_path, data=sample_set).facts
    assert (facts["reconstructions"], facts["loss"]) == ("none: this is no run of pretrain", "not finite")
    with pytest.raises(UsageError, match=r"nowhere: no shard set here \(there is no such folder\)"):
        report(tmp_path, data=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a run of `s3prl-stream train`"):
        export_s3prl(tmp_path, tmp_path / "x.ckpt")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(StateError, match=r"run\.json: cannot be read"):
        report(tmp_path)


def test_facts_of_a_run(tmp_path: Path) -> None:
    def line(step: int, loss: float | None) -> dict[str, Any]:
        return {"step": step, "loss": loss, "applied": loss is not None, "seconds": 36.0, "hours_seen": step / 100}

    times = [(1, 9.0, 9.0), (1, 1.0, 4.0), (2, 0.0, 1.0)]  # the first step twice: before a kill, and after it
    (tmp_path / "waits.jsonl").write_text(
        "".join(
            json.dumps({"step": step, "waited_seconds": waited, "seconds": took}) + "\n" for step, waited, took in times
        )
    )
    losses = [line(step, None if step == 2 else float(step)) for step in range(1, 121)]
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(one) + "\n" for one in losses))
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "a": 1.0}\n{"step": 9, "a": 2.0}\n')
    facts = report(tmp_path).facts
    del facts["reconstructions"]
    with (tmp_path / "layer_weights.json").open("w") as file:
        file.write("[0.5, ")
    with pytest.raises(StateError, match=r"layer_weights\.json: cannot be read .*The same `train` command"):
        report(tmp_path)
    assert facts == {
        "steps": "120", "audio seen": "1.20 h", "loss": "70.5000 (mean of the last 100 steps)",
        "speed": "0.004 audio hours a second", "waiting for data": "20.0% of the time",
        "updates left out": "1", "continued": "0 times", "a": "2",
    }  # fmt: skip


def test_a_long_curve_is_one_of_means() -> None:
    steps, values = module._thinned(np.arange(1.0, 803), np.array([*range(1, 801), math.nan, math.inf]))
    assert (len(steps), steps[:2], values[:2]) == (400, [2, 4], [1.5, 3.5])


def test_without_matplotlib_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses.jsonl").write_text('{"step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0}\n')
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pictures need matplotlib"):
        report(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["losses.jsonl"]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no steps in losses\.jsonl"):
        report(tmp_path)
