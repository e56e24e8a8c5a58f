"""The real servers do what the tests that use them count on, and leave nothing behind."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.obstore_client import get, get_range, obstore_process, put, put_and_get_url
from integration.servers import TOOL, Azurite, Nginx, Rgw

from s3prl_stream.chaos import ChaosProxy

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture(scope="module")
def client() -> Iterator[Callable[..., Any]]:
    with obstore_process() as run:
        yield run


def tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TOOL, *arguments], capture_output=True, text=True)


def test_a_folder_with_other_things_in_it_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for command in ("up", "down", "status"):
        done = tool(command, tmp_path)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_down_where_nothing_is(tmp_path: Path) -> None:
    assert tool("down", tmp_path / "none").returncode == 0
    assert list(tmp_path.iterdir()) == []


def fetch(url: str, byte_range: str | None = None) -> tuple[int, bytes]:
    headers = {} if byte_range is None else {"Range": byte_range}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.slow
def test_the_gateway_keeps_objects_and_checks_signatures(rgw: Rgw, client: Callable[..., Any]) -> None:
    environment = rgw.environment()
    assert client(put, environment, rgw.bucket, "servers/object", CONTENT) is not None
    assert client(get_range, environment, rgw.bucket, "servers/object", 1000, 2_000_000) == CONTENT[1000:2_001_000]
    assert fetch(f"{rgw.endpoint}/{rgw.bucket}/servers/object")[0] == 403
    forged = {**environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    assert "403" in client(get_range, forged, rgw.bucket, "servers/object", 0, 10)


@pytest.mark.slow
def test_the_public_bucket_can_be_read_by_all(rgw: Rgw, client: Callable[..., Any]) -> None:
    client(put, rgw.environment(), rgw.public_bucket, "servers/object", CONTENT)
    assert fetch(f"{rgw.endpoint}/public/servers/object", "bytes=5-9") == (206, CONTENT[5:10])


@pytest.mark.slow
def test_objects_outlive_the_gateway(rgw: Rgw, client: Callable[..., Any]) -> None:
    client(put, rgw.environment(), rgw.bucket, "servers/object", CONTENT)
    rgw.kill_gateway()
    try:
        with pytest.raises(urllib.error.URLError):
            fetch(rgw.endpoint)
        assert tool("status", rgw.folder).returncode == 1
    finally:
        rgw.start_gateway()
    assert client(get, rgw.environment(), rgw.bucket, "servers/object") == CONTENT
    assert tool("status", rgw.folder).returncode == 0


@pytest.mark.slow
def test_a_limited_gateway_gives_real_503s(rgw: Rgw, client: Callable[..., Any]) -> None:
    client(put, rgw.environment(), rgw.public_bucket, "servers/big", CONTENT * 10)
    host, port = rgw.endpoint.removeprefix("http://").split(":")
    # The first request keeps the only place: its answer does not fit the buffers of a connection that nobody reads.
    with rgw.limited_to(1), socket.create_connection((host, int(port)), timeout=60) as holder:
        holder.sendall(f"GET /public/servers/big HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert holder.recv(100).startswith(b"HTTP/1.1 200")
        assert fetch(f"{rgw.endpoint}/public/servers/big", "bytes=0-9")[0] == 503
    assert fetch(f"{rgw.endpoint}/public/servers/big", "bytes=0-9") == (206, CONTENT[:10])


@pytest.mark.slow
def test_up_again_changes_nothing_and_two_folders_are_two_servers(rgw: Rgw, tmp_path: Path) -> None:
    before = (rgw.folder / "server.json").read_bytes()
    again = tool("up", rgw.folder)
    assert (again.returncode, json.loads(again.stdout)["endpoint"]) == (0, rgw.endpoint)
    assert (rgw.folder / "server.json").read_bytes() == before
    assert tool("start-rgw", rgw.folder).returncode == 2
    assert tool("up", rgw.folder, "--kind", "nginx").returncode == 2


@pytest.mark.slow
def test_down_leaves_nothing_behind(nginx: Nginx, tmp_path: Path) -> None:
    threads = [threading.Thread(target=tool, args=("up", tmp_path / "web", "--kind", "nginx")) for _ in range(2)]
    for thread in threads:  # two at once: one starts it, the other finds it
        thread.start()
    for thread in threads:
        thread.join()
    state = json.loads(tool("status", tmp_path / "web").stdout)
    assert state["endpoint"] != nginx.endpoint
    assert fetch(state["endpoint"])[0] == 200
    assert tool("down", tmp_path / "web").returncode == 0
    with pytest.raises(urllib.error.URLError):
        fetch(state["endpoint"])
    assert list(tmp_path.iterdir()) == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        assert str(tmp_path / "web").encode() not in process.read_bytes()


@pytest.mark.slow
def test_nginx_serves_ranges_and_tells_of_them(nginx: Nginx) -> None:
    (nginx.files / "servers").mkdir()
    (nginx.files / "servers" / "object").write_bytes(CONTENT)
    assert fetch(f"{nginx.endpoint}/servers/object", "bytes=100-199") == (206, CONTENT[100:200])
    (line,) = [line for line in nginx.requests() if line["path"] == "/servers/object"]
    assert line == {**line, "method": "GET", "range": "bytes=100-199", "status": 206, "bytes_sent": 100}


@pytest.mark.slow
def test_urls_alone_lead_to_the_servers(rgw: Rgw, azurite: Azurite, client: Callable[..., Any]) -> None:
    for server, url in ((rgw, "s3://test/servers"), (azurite, "az://test/servers")):
        with ChaosProxy(server.endpoint) as proxy:
            assert client(put_and_get_url, server.environment(), url, "object", CONTENT) == CONTENT
            assert proxy.num_requests == 0
            through = server.environment(endpoint=proxy.url)
            assert client(put_and_get_url, through, url, "object", CONTENT) == CONTENT
            assert proxy.num_requests > 1
