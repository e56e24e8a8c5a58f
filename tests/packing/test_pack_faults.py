"""What goes wrong while packing ends in one message, an exit status, and a set that is complete or can be finished."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.servers import Rgw
from tars import files_below, noise_files

import s3prl_stream as ss
from s3prl_stream.cli import main

NOBODY = 65_534


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of a second."""
    return noise_files(tmp_path_factory.mktemp("recordings"), 12, 16_000, suffix="wav")


def words(recordings: Path, out: Path | str, *options: str) -> list[str]:
    settings = ["--codec", "wav", "--shard-mb", "0.1", "--workers", "0"]
    return ["pack", "folder", str(recordings), str(out), *settings, *options]


def told(stderr: str) -> list[str]:
    """Its lines that are no progress."""
    return [line for line in stderr.splitlines() if not line.startswith(("packing:", "index:"))]


def run_apart(arguments: list[str]) -> tuple[int, list[str]]:
    """Exit status of the command in a process of its own, and what it told."""
    program = "import sys\nfrom s3prl_stream.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, told(done.stderr)


@pytest.fixture(scope="module")
def undisturbed(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of them."""
    folder = tmp_path_factory.mktemp("undisturbed") / "set"
    assert main(words(recordings, folder, "--name", "set")) == 0
    return folder


def assert_goes_on(recordings: Path, out: Path, undisturbed: Path) -> None:
    """The same command finishes the set, whose files are those of an undisturbed one."""
    assert main(words(recordings, out, "--name", "set")) == 0
    assert files_below(out) == files_below(undisturbed)


@contextmanager
def files_below_60_kb() -> Iterator[None]:
    """No file may grow beyond that: what a shard needs is more, what stands before it less."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(recordings: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    with files_below_60_kb():
        assert main(words(recordings, out, "--name", "set")) == 1
    lines = told(capsys.readouterr().err)
    assert len(lines) == 1
    assert f"{out}: cannot be written: File too large" in lines[0]
    assert "the same command goes on" in lines[0]
    assert not list(out.glob("*.tar"))
    assert_goes_on(recordings, out, undisturbed)


@pytest.mark.slow
def test_a_full_disk_of_its_own(recordings: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "disk"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", out], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        status, lines = run_apart(words(recordings, out / "set", "--name", "set"))
        assert (status, len(lines)) == (1, 1)
        assert "No space left on device" in lines[0]
        assert list((out / "set").glob("*.tar"))
        subprocess.run(["mount", "-o", "remount,size=9m", out], check=True)
        assert_goes_on(recordings, out / "set", undisturbed)
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_folder_that_may_not_be_written(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # where nobody else may look, root would have to be
        base = Path(folder)
        base.chmod(0o755)
        shutil.copytree(recordings, base / "recordings").chmod(0o755)
        (base / "closed").mkdir()
        assert main(words(base / "recordings", base / "open")) == 0  # imports what it needs
        capsys.readouterr()
        (base / "closed").chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(NOBODY)
        try:
            status = main(words(base / "recordings", base / "closed/set"))
        finally:
            if was_root:
                os.seteuid(0)
        assert status == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "closed/set: cannot be written: Permission denied" in line
        assert not list((base / "closed").iterdir())


@pytest.mark.parametrize("command", [["subset", "--where", "seconds > 0"], ["repair"]])
def test_a_full_disk_under_a_copy(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(words(recordings, tmp_path / "set")) == 0
    shard = tmp_path / "set/set-000000.tar"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:])  # so that repair writes it anew
    capsys.readouterr()
    copy = [command[0], str(tmp_path / "set"), str(tmp_path / "copy"), *command[1:], "--workers", "0"]
    with files_below_60_kb():
        assert main(copy) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'copy'}: cannot be written: File too large" in line
    assert line.endswith("When that is mended, give the same command again.")
    assert main(copy) == 1  # of one sample that is damaged
    assert main(["verify", str(tmp_path / "copy"), "--full", "--workers", "0"]) == 0


def test_every_file_of_a_set_is_on_the_disk_before_it_has_its_name(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves under its name is whole."""
    flushed: set[int] = set()
    early: list[Path] = []
    fsync, replace = os.fsync, Path.replace

    def noted(file: int) -> None:
        fsync(file)
        flushed.add(os.fstat(file).st_ino)

    def checked(path: Path, target: Path) -> Path:
        early.extend([target] if path.stat().st_ino not in flushed else [])
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", checked)
    whole, part, repaired = (tmp_path / name for name in ("set", "part", "repaired"))
    ss.pack(ss.corpora.folder(recordings), whole)
    ss.subset(whole, part, "50%")
    files = [path for folder in (whole, part) for path in folder.rglob("*") if path.is_file()]
    (part / "set-000000.tar").write_bytes(b"\1" + (part / "set-000000.tar").read_bytes()[1:])
    ss.repair(part, repaired)
    files += [path for path in repaired.rglob("*") if path.is_file()]
    assert [path for path in files if path.stat().st_ino not in flushed] == early == []


def test_no_pack_writes_into_a_half_written_file_of_another(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a folder of its own for them, also for what is written at the end."""
    renamed: dict[str, str] = {}
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        renamed[target.relative_to(tmp_path / "set").as_posix()] = path.relative_to(tmp_path / "set/.packing").parts[0]
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    ss.pack(ss.corpora.WithFiles(ss.corpora.folder(recordings), {"a.txt": b""}), tmp_path / "set")
    files = files_below(tmp_path / "set").keys()
    assert files <= set(renamed)
    owners = {folder for name, folder in renamed.items() if name in files or "/shards/" in name}
    assert len(owners) == 1
    assert owners.pop().startswith("scratch-")


KILLED_AT_THE_MANIFEST = """
import os, signal, pathlib, sys
import pyarrow.parquet, soundfile, google_crc32c  # before the forks
from s3prl_stream.cli import main
from s3prl_stream.stores.local_store import LocalStore

write, replace = LocalStore.write, pathlib.Path.replace
def die(): os.kill(os.getpid(), signal.SIGKILL)
def killing(self, name, content):
    if name == "manifest.json" and MOMENT == "before": die()
    write(self, name, content)
    if name == "manifest.json" and MOMENT == "behind": die()
def half(self, to):
    if self.name == "manifest.json.partial" and MOMENT == "during": die()
    return replace(self, to)
LocalStore.write, pathlib.Path.replace = killing, half
for MOMENT in ("before", "during", "behind"):
    child = os.fork()
    if not child:
        os._exit(main([MOMENT if word == "OUT" else word for word in sys.argv[1:]]))
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_kill_at_the_manifest(recordings: Path, undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_THE_MANIFEST, *words(recordings, "OUT", "--name", "set")]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 3
    for moment in ("before", "during", "behind"):
        out = tmp_path / moment
        assert (out / "manifest.json").exists() == (moment == "behind")
        tars = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
        assert len(tars) == 5
        assert_goes_on(recordings, out, undisturbed)
        assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == tars


def test_text_that_is_called_audio_and_two_utterances_of_one_key(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    rows = [{"audio": str(path)} for path in sorted(recordings.iterdir())]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, [*rows, {"audio": str(tmp_path / "text.wav")}])))
    assert main(["pack", "manifest", str(manifest), str(tmp_path / "set"), "--workers", "0"]) == 1
    assert "text.wav: " in capsys.readouterr().out
    assert ss.verify(tmp_path / "set", full=True).is_sound
    manifest.write_text("\n".join(json.dumps({**row, "key": "same"}) for row in rows))
    assert main(["pack", "manifest", str(manifest), str(tmp_path / "none"), "--workers", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "two utterances have the key 'same'" in line
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("codec", ["flac", "original"])
def test_a_file_that_changed_after_it_was_planned_is_damaged(recordings: Path, tmp_path: Path, codec: str) -> None:
    from s3prl_stream.packing.pack import pack_set
    from s3prl_stream.packing.settings import PackSettings

    for path in recordings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def change(step: str, done: int, total: int | None) -> None:
        if step == "headers":
            (tmp_path / "clip03.wav").write_bytes((recordings / "clip03.wav").read_bytes() + b"more")

    report = pack_set(ss.corpora.folder(tmp_path), tmp_path / "set", PackSettings(codec), progress=change)
    assert [(one.key, one.reason) for one in report.damaged] == [("clip03", "changed")]


def test_ray_without_a_cluster(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not any(Path(folder, "ray").is_dir() for folder in sys.path):
        assert main(words(recordings, tmp_path / "set", "--engine", "ray")) == 2
        assert "pip install" in capsys.readouterr().err
        assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_a_bucket_that_denies_access(recordings: Path, rgw: Rgw, monkeypatch: pytest.MonkeyPatch) -> None:
    rgw.set_environment(monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    status, lines = run_apart(words(recordings, f"s3://{rgw.bucket}/denied/set"))
    assert (status, len(lines)) == (1, 1)
    assert "permission denied" in lines[0].lower()
    assert "wrong" not in lines[0]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rgw.secret_key)
    status, lines = run_apart(words(recordings, f"s3://{rgw.bucket}/denied/set"))
    assert (status, lines) == (0, [])
