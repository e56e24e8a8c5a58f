"""What all encoders ask of their sizes."""

from __future__ import annotations

from s3prl_stream.errors import UsageError


def at_least_one(**sizes: int) -> None:
    """UsageError for a size below 1, by its name."""
    for name, value in sizes.items():
        if value < 1:
            raise UsageError(f"encoder: {name} is {value}; it must be at least 1")


def below_one(**dropouts: float) -> None:
    """UsageError for a share that is dropped which is below 0, or is all, by its name."""
    for name, value in dropouts.items():
        if not 0 <= value < 1:
            raise UsageError(f"encoder: {name} is {value}; it must be at least 0 and below 1")
