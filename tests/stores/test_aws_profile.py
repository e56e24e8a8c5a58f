"""What the files of AWS's tools add to the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.stores.aws_profile import profile_settings
from s3prl_stream.stores.object_clients import client_of

CREDENTIALS = """
[default]
aws_access_key_id = AK1
aws_secret_access_key = hidden%1
[other]
aws_access_key_id = AK2
aws_secret_access_key = hidden2
aws_session_token = hidden3
"""
CONFIG = """
[default]
region = eu-west-1
[profile other]
region = eu-north-1
endpoint_url = https://s3.example.org
[profile signed-in]
sso_session = work
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return tmp_path / ".aws"


def test_the_default_profile_gives_keys_and_region() -> None:
    assert profile_settings() == {"access_key_id": "AK1", "secret_access_key": "hidden%1", "region": "eu-west-1"}


def test_a_named_profile_and_named_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "other")
    expected = {"access_key_id": "AK2", "secret_access_key": "hidden2", "token": "hidden3"}
    assert profile_settings() == {**expected, "region": "eu-north-1", "endpoint": "https://s3.example.org"}
    (home / "credentials").rename(home / "elsewhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "elsewhere"))
    assert profile_settings()["token"] == "hidden3"


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "other")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8000")
    assert profile_settings() == {"region": "eu-north-1"}
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert profile_settings() == {}


def test_an_endpoint_that_is_not_encrypted_has_to_be_allowed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@store.example.org:8000")
    said = "AWS_ENDPOINT_URL is http://store.example.org:8000, which is not encrypted. Set AWS_ALLOW_HTTP=true"
    with pytest.raises(UsageError, match=said):
        client_of("s3://bucket/set")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", "other")
    (home / "config").write_text(CONFIG.replace("https://", "http://"))
    with pytest.raises(UsageError, match=r"endpoint is http://s3\.example\.org, which is not encrypted"):
        client_of("s3://bucket/set")


def test_no_files_are_no_settings(home: Path) -> None:
    for path in home.iterdir():
        path.unlink()
    assert profile_settings() == {}


def test_what_cannot_be_had_is_said_without_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(UsageError, match="AWS_PROFILE=none: no such profile"):
        profile_settings()
    monkeypatch.setenv("AWS_PROFILE", "signed-in")
    with pytest.raises(UsageError, match="aws configure export-credentials"):
        profile_settings()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    assert profile_settings() == {}
    (home / "credentials").write_text("hidden")
    with pytest.raises(UsageError, match="not readable") as caught:
        profile_settings()
    assert "hidden" not in str(caught.value)
