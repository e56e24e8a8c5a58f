"""The page that plays a batch, in headless Chromium: nothing to complain of, and every sound plays.

Needs `pip install -e ".[browser]"` and Chromium (Debian: `apt-get install chromium`), or the one that `playwright
install chromium` brings. S3PRL_STREAM_SCREENSHOTS=DIR keeps the screenshots, to be looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_of_batch import Page

import s3prl_stream as ss
from s3prl_stream.pipes import NoiseBank
from s3prl_stream.shards.memory import MemoryShards

pytestmark = pytest.mark.slow

HOSTILE = "<script>window.hacked = 1</script>'\"&amp;<img src=x onerror='window.hacked = 1'>"
WIDTHS = (1280, 390)

PLAY_ALL = """async () => {
    const heard = [];
    for (const audio of document.querySelectorAll('audio')) {
        const event = (name) => new Promise((resolve, reject) => {
            audio.addEventListener(name, resolve, {once: true});
            audio.addEventListener('error', () => reject(audio.error), {once: true});
        });
        const ready = event('canplaythrough');
        audio.preload = 'auto';
        audio.load();
        await ready;
        await audio.play();
        while (audio.currentTime === 0) await event('timeupdate');
        heard.push([audio.duration, audio.currentTime]);
        audio.pause();
    }
    return heard;
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason='pip install -e ".[browser]"')
    found = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as started:
        if found is None and not Path(started.chromium.executable_path).is_file():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]  # the first one for containers
        browser = started.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


def looked_at(chromium: Any, path: Path, screenshots: Path) -> None:
    """Open a page from its file, play all of it, and take screenshots at both widths."""
    shown = Page(path)
    sounds = [sound for clip in shown.clips for step in clip["steps"].values() for sound in step["sounds"]]
    page = chromium.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.title().startswith("Batch ")
    heard = page.evaluate(PLAY_ALL)
    assert [duration for duration, _ in heard] == pytest.approx([len(wav) / rate for wav, rate in sounds], abs=1e-4)
    assert all(0 < time <= duration for duration, time in heard)
    assert sounds
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than its window"
        page.screenshot(path=screenshots / f"{path.stem}-{width}.png", full_page=True)
    assert page.evaluate("window.hacked") is None
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    page.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("S3PRL_STREAM_SCREENSHOTS", tmp_path))
    folder.mkdir(exist_ok=True)
    return folder


def test_a_page_of_the_sample_set_with_hostile_names(
    chromium: Any, sample_set: Path, tmp_path: Path, screenshots: Path
) -> None:
    wavs = [sample["wav"] for sample, _ in zip(ss.ShardStream(sample_set).load_audio(), range(3), strict=False)]
    samples = {
        f"{HOSTILE} {number}": {"wav": wav, "text": HOSTILE, HOSTILE: "x\u202e\x00y"} for number, wav in enumerate(wavs)
    }
    samples["damaged"] = {**samples[f"{HOSTILE} 0"], "audio": b"no", "codec": "flac"}
    stream = ss.ShardStream(MemoryShards(samples, name=HOSTILE), epochs=1).load_audio().sox_effects([["tempo", "1.2"]])
    loader = ss.Loader(
        stream.add_noise(snr=(3, 20)).tokenize(train_tokenizer=True).features().mask_spans().spec_augment()
    )
    loader.exclude([f"{HOSTILE} 2"])
    loader.which(0, html=tmp_path / "hostile.html")
    looked_at(chromium, tmp_path / "hostile.html", screenshots)


def test_a_page_of_real_speech_in_real_noise(chromium: Any, real_data: Path, tmp_path: Path, screenshots: Path) -> None:
    files = sorted((real_data / "LibriSpeech").rglob("*.flac"))[::60]
    samples = {path.stem: {"wav_path": str(path)} for path in files}
    bank = NoiseBank(real_data / "esc10" / "002 - Rain", cache=tmp_path / "cache")
    stream = ss.ShardStream(samples, epochs=1).load_audio().add_noise(noise=bank, snr=(0, 10)).perturb_speed()
    stream = (
        stream.chunk(min_seconds=3.0, max_seconds=9.0, tail="merge").features("logmel80").mask("tera", noise_prob=0.5)
    )
    loader = ss.Loader(stream)
    loader.which(0, html=tmp_path / "real.html")
    looked_at(chromium, tmp_path / "real.html", screenshots)
