"""`s3prl-stream chaos-serve` in a process of its own, ended as its user ends it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.ranged_server import ObjectServer, serving

from s3prl_stream.cli import main


@pytest.fixture(scope="module")
def upstream() -> Iterator[ObjectServer]:
    with serving() as server:
        server.objects["/a.tar"] = bytes(1000)
        server.objects["/a.json"] = bytes(10)
        yield server


def status_of(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_sums_up(upstream: ObjectServer, tmp_path: Path, end: signal.Signals) -> None:
    words = ["--upstream", upstream.url, "--faults", "503@*.tar:1", "--log", str(tmp_path / "log"), "--json"]
    command = [sys.executable, "-m", "s3prl_stream", "chaos-serve", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serve:
        assert serve.stdout is not None
        url = json.loads(serve.stdout.readline())["url"]
        assert [status_of(url, path) for path in ("/a.tar", "/a.json", "/a.tar")] == [503, 200, 503]
        serve.send_signal(end)
        out, err = serve.communicate(timeout=60)
    assert (serve.returncode, err) == (0, "")
    logged = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert [(one["path"], one["fault"]) for one in logged] == [("/a.tar", "503"), ("/a.json", None), ("/a.tar", "503")]
    sent = sum(one["bytes_sent"] for one in logged)
    assert json.loads(out) == {"requests": 3, "bytes": sent, "faults": {"503": 2}}


def test_the_summary_for_people(upstream: ObjectServer) -> None:
    command = [sys.executable, "-m", "s3prl_stream", "chaos-serve", "--upstream", upstream.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serve:
        assert serve.stdout is not None
        url = serve.stdout.readline().split()[0]
        assert status_of(url, "/a.tar") == 200
        serve.send_signal(signal.SIGINT)
        out, err = serve.communicate(timeout=60)
    assert (serve.returncode, out, err) == (0, "1 requests, 0.0 MB, faults: none\n", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--upstream", "s3://bucket"], "http://host:port"),
        (["--upstream", "http://127.0.0.1:1", "--faults", "brake:0.1"], "brake"),
        (["--upstream", "http://127.0.0.1:1", "--faults", "cut:2"], "0 to 1"),
        (["--upstream", "http://127.0.0.1:1", "--port", "70000"], "65535"),
        (["--upstream", "http://127.0.0.1:1", "--log", "no/such/folder/log"], "no/such/folder/log"),
        ([], "--upstream"),
    ],
)
def test_wrong_use_is_one_line(words: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(["chaos-serve", *words])
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    assert (status, shown.out, len(shown.err.splitlines())) == (2, "", 1), shown.err
    assert found in shown.err


def test_a_taken_port_is_one_line(upstream: ObjectServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["chaos-serve", "--upstream", upstream.url, "--port", str(upstream.server_port)]
    assert main(words) == 2
    assert f"127.0.0.1:{upstream.server_port}" in capsys.readouterr().err
