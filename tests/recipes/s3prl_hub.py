"""Run by the Python of an environment with S3PRL: its hub's hidden states of checkpoints, into .npz files beside them.

python s3prl_hub.py FOLDER      FOLDER holds wavs.npz and RECIPE.ckpt
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio

# S3PRL asks for them when it is imported; torchaudio has them no more
torchaudio.set_audio_backend = lambda *_: None
torchaudio.sox_effects = sys.modules["torchaudio.sox_effects"] = types.ModuleType("torchaudio.sox_effects")
torchaudio.sox_effects.apply_effects_file = torchaudio.sox_effects.apply_effects_tensor = None


def entries() -> dict[str, Any]:
    """Recipe -> the hub's function that loads its checkpoints."""
    from s3prl.upstream.apc.hubconf import apc_local
    from s3prl.upstream.distiller import hubconf
    from s3prl.upstream.mockingjay.hubconf import mockingjay_local
    from s3prl.upstream.npc.hubconf import npc_local

    distiller_local = getattr(hubconf, "distilhubert_local", None) or hubconf.distiller_local
    transformers = dict.fromkeys(("tera", "mockingjay", "audio_albert"), mockingjay_local)
    return {**transformers, "apc": apc_local, "vq_apc": apc_local, "npc": npc_local, "distilhubert": distiller_local}


def main(folder: Path) -> None:
    waves = np.load(folder / "wavs.npz")
    wavs = [torch.from_numpy(waves[name]) for name in waves.files]
    for recipe, load in entries().items():
        path = folder / f"{recipe}.ckpt"
        if path.exists():
            with torch.no_grad():
                hidden_states = load(str(path)).eval()(wavs)["hidden_states"]
            np.savez(folder / f"{recipe}.npz", *(hidden.numpy() for hidden in hidden_states))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
