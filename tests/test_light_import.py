"""What needs no GPU stack does not load one: step by step in one fresh interpreter, since modules only get more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tars import clip, tar

HEAVY = {"torch", "torchaudio", "sentencepiece", "sklearn", "matplotlib"}
AUDIO = {"soundfile", "miniaudio", "soxr"}
STEPS: dict[str, tuple[str, set[str]]] = {
    "help": ("with contextlib.suppress(SystemExit): main(['--help'])", HEAVY | {"soundfile", "pyarrow", "numpy"}),
    "import s3prl_stream.packing.pack": ("import s3prl_stream.packing.pack", HEAVY | AUDIO),
    "import s3prl_stream.corpora": ("import s3prl_stream.corpora", HEAVY | AUDIO),
    "open a set": ("assert len(s3prl_stream.open_shards(sample)) > 0", HEAVY),
    "inspect": ("assert main(['inspect', sample]) == 0", HEAVY),
    "plan": ("assert main(['plan', sample, '--old', 'batch_size=4']) == 0", HEAVY),
    "missing sets and runs": ("assert not [words for words in missing if main(words.split()) != 2]", HEAVY),
    "index": ("assert main(['index', work + '/x.tar', '--workers', '0']) == 0", HEAVY),
    "pack": ("assert main(['pack', 'folder', work + '/audio', work + '/set', '--workers', '0']) == 0", HEAVY),
}
"""What is done, and what must not be loaded behind it."""

MISSING = [
    "plan no/set",
    "which no/set --batch 0",
    "pretrain tera --data no/set --out x --steps 1",
    "train ks --data no/set --upstream fbank --out x",
    "evaluate . --data no/set",
    "predict . --data no/set",
    "sweep ks --data no/set --upstream fbank --out x",
    "search --queries no/set --data no/set --upstream fbank",
    "extract --data no/set --upstream fbank --out x",
    "probe --data no/set --upstream fbank --label x",
    "report no/run",
    "evaluate no/run --data no/set",
    "predict no/run --data no/set",
    "export no/run x",
]
"""Commands of a set or of a run that is not there, which need not wait for torch."""


@pytest.fixture(scope="module")
def loaded(sample_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Step -> top-level modules that are loaded behind it."""
    work = tmp_path_factory.mktemp("light")
    (work / "x.tar").write_bytes(tar(clip("a")))
    (work / "audio").mkdir()
    soundfile.write(work / "audio/a.wav", np.zeros(16_000, np.int16), 16_000)
    code = ["import contextlib, json, sys", "import s3prl_stream", "from s3prl_stream.cli import main"]
    code += ["sample, work = sys.argv[1:]", f"missing = {MISSING!r}", "loaded = {}"]
    for name, (words, _) in STEPS.items():
        code += [words, f"loaded[{name!r}] = sorted({{name.split('.')[0] for name in sys.modules}})"]
    code.append("print('\\n' + json.dumps(loaded))")
    command = [sys.executable, "-c", "\n".join(code), str(sample_set), str(work)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {name: set(modules) for name, modules in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.parametrize("step", STEPS)
def test_nothing_heavy_is_loaded(loaded: dict[str, set[str]], step: str) -> None:
    assert loaded[step].isdisjoint(STEPS[step][1])
