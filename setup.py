"""The package s3prl-stream: `pip install .`, or `pip install -e ".[dev]"` to work on it.

torch and torchaudio are a pair: torchaudio 2.11 is the last release, and it imports next to torch 2.11 only.
The other ranges start at a release that the tests passed with, on Python 3.10 and with all of these lowest ones
together: `uv pip install --resolution lowest-direct -e ".[dev]"`.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "s3prl_stream/__init__.py").read_text("utf-8"), re.MULTILINE)
assert VERSION is not None, "s3prl_stream/__init__.py has no line __version__ = ..."

BROWSER = ["playwright>=1.50,<2"]  # to test the pages; Chromium is another matter
HUGGINGFACE = ["datasets>=4,<6", "transformers>=5,<6"]
PLOTS = ["matplotlib>=3.10.7,<4"]  # older ones call names that pyparsing 3.3 deprecates
RAY = ["ray>=2.40,<3"]  # to pack on a cluster
TENSORBOARD = ["tensorboard>=2.18,<3"]
TRAINERS = ["accelerate>=1.10.1,<2", "lightning>=2.6,<3", "speechbrain>=1.1,<2", "transformers>=5,<6"]

setup(
    name="s3prl-stream",
    version=VERSION[1],
    description="Speech self-supervised learning on one stream: pack once, resume exactly, pretrain, probe.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["s3prl_stream", "s3prl_stream.*"]),
    package_data={"s3prl_stream": ["py.typed"]},
    entry_points={"console_scripts": ["s3prl-stream = s3prl_stream.cli:main"]},
    install_requires=[
        "torch>=2.11,<2.12",
        "torchaudio>=2.11,<2.12",
        "numpy>=2.1,<3",
        "pyarrow>=18,<27",
        "soundfile>=0.13,<1",  # libsndfile 1.2.2: older ones do not notice some damaged files
        "miniaudio>=1.70,<1.72",  # its inner names, which we call, changed between 1.61 and 1.70
        "soxr>=0.5,<2",
        "google-crc32c>=1.6,<2",
        "pyyaml>=6,<7",  # Energon's metadata
        "sentencepiece>=0.2.3,<0.3",  # 0.2.1 crashes next to torch
        "tqdm>=4.66.3,<5",
        "tomli>=2,<3; python_version < '3.11'",  # what is tomllib later
        "rapidfuzz>=3.6,<4",  # edit distances
        "scipy>=1.13,<2",  # the best matching of speakers, the distances of DTW
        # object stores; of the clients tried the only one that resumes a cut body. 0.11.1 is the last for Python 3.10
        "obstore>=0.11.1,<0.13",
    ],
    extras_require={
        "browser": BROWSER,
        "huggingface": HUGGINGFACE,
        "plots": PLOTS,
        "ray": RAY,
        "tensorboard": TENSORBOARD,
        "trainers": TRAINERS,
        "dev": [
            *HUGGINGFACE,
            *PLOTS,
            *RAY,
            "duckdb>=1.1,<3",  # what users query an index with
            *TENSORBOARD,
            *TRAINERS,
            "hypothesis>=6.115,<7",
            "mypy==2.4.1",
            "numpy<2.5",  # what mypy finds depends on numpy's type stubs; the tests pass with 2.5 as well
            "pandas>=2.2.2,<4",
            "psutil>=6,<8",
            "pytest>=8.3,<10",
            "pytest-timeout>=2.3.1,<3",
            "pytest-xdist>=3.6.1,<4",
            "ruff==0.17.6",
            "torchdata>=0.11,<0.12",
            "webdataset>=0.2.100,<2",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
