"""Keys and region from ~/.aws/credentials and ~/.aws/config, which obstore does not read, if the environment has none.

Files and precedence are those of AWS's own tools (AWS CLI User Guide, "Configuration and credential file settings").
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path

from s3prl_stream.errors import UsageError

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "token",
    "region": "region",
    "endpoint_url": "endpoint",
}
"""Name in the files -> obstore's."""

_BY_PROGRAMS = ("sso_session", "sso_start_url", "role_arn", "credential_process")
_FIRST_IN_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def profile_settings() -> dict[str, str]:
    """What the profile AWS_PROFILE, or "default", says and the environment does not; {} where there is none.

    Raises:
        UsageError: AWS_PROFILE names none that is there, the files cannot be read, or the profile gets its keys by
            signing in, from a role or from a program.
    """
    wanted = os.environ.get("AWS_PROFILE")
    profile = wanted or "default"
    credentials = _read("AWS_SHARED_CREDENTIALS_FILE", "credentials")
    config = _read("AWS_CONFIG_FILE", "config")
    section = "default" if profile == "default" else f"profile {profile}"
    if wanted and not credentials.has_section(wanted) and not config.has_section(section):
        raise UsageError(f"AWS_PROFILE={wanted}: no such profile in ~/.aws/credentials or ~/.aws/config.")
    found: dict[str, str] = {}
    for file, name in ((config, section), (credentials, profile)):
        found |= dict(file.items(name)) if file.has_section(name) else {}
    settings = {ours: found[name] for name, ours in _KEYS.items() if name in found}
    if any(name in os.environ for name in _FIRST_IN_ENVIRONMENT):
        for name in ("access_key_id", "secret_access_key", "token"):
            settings.pop(name, None)
    elif "access_key_id" not in settings and any(name in found for name in _BY_PROGRAMS):
        raise UsageError(
            f"the AWS profile {profile!r} gets its keys by signing in, from a role or from a program, which only AWS's "
            'own tools do. Put them into the environment: eval "$(aws configure export-credentials --format env)".'
        )
    for name, variables in (("region", _REGIONS), ("endpoint", _ENDPOINTS)):
        if any(variable in os.environ for variable in variables):
            settings.pop(name, None)
    return settings


def _read(variable: str, name: str) -> configparser.RawConfigParser:
    path = Path(os.environ.get(variable) or Path.home() / ".aws" / name).expanduser()
    parser = configparser.RawConfigParser(default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, configparser.Error) as error:  # its text may quote a line with a key
        raise UsageError(f"{path}: not readable as AWS's settings ({type(error).__name__}).") from None
    return parser
