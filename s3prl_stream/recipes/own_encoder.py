"""A network of one's own in a recipe, by the dotted name of its class: what the command line takes.

It is code of the person who names it, and is imported as any module is. A name that is read from a run is never
imported.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.draws import drawn_by


def own_encoder(encoder: nn.Module | str | None, *, seed: int = 0) -> nn.Module | None:
    """The encoder itself, or "package.module:Class" made without arguments; its weights then follow from `seed`.

    Modules are looked for in the working directory as well.

    Raises:
        UsageError: no such module or class, it cannot be made without arguments, or no module at all.
    """
    if encoder is not None and not isinstance(encoder, str | nn.Module):
        raise UsageError(f"encoder {encoder!r:.200}: give a torch.nn.Module, not its class; or text, my.module:Net")
    if not isinstance(encoder, str):
        return encoder
    module_name, _, name = encoder.partition(":")
    if not name or not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise UsageError(f"encoder {encoder!r}: write module and class as in my.module:Net")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        make = getattr(importlib.import_module(module_name), name)
        with drawn_by("weights", seed):
            network = make()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(f"encoder {encoder!r}: {error}; it must be a class that is made without arguments") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"encoder {encoder!r}: makes a {type(network).__name__}, not a torch.nn.Module")
    return network
