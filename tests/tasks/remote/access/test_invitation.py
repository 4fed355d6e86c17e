"""What a learner opens to other machines, and what it says of it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.access.credentials import make_credentials
from tasks.remote.access.invitation import announce, announce_relay, check_credentials, is_loopback, read_remote_port
from tasks.remote.access.tokens import WORKER, Verdict
from tasks.remote.config import RemoteConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = {}
    for name, hosts in (("named", ["learner.example.org", "10.0.0.1"]), ("unnamed", []), ("numbered", ["fd00::7"])):
        folder = tmp_path_factory.mktemp(name)
        make_credentials(folder, hosts, ["pc"])
        made[name] = str(folder / "learner")
    return made


def said(caplog: pytest.LogCaptureFixture, remote: RemoteConfig, address: str) -> tuple[str, list[str]]:
    """The text, and the warnings in it."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    announce(read_remote_port(remote), address, ["task=TM20Lidar"])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return caplog.text, warnings


def remote(credentials: str, **kwargs: Any) -> RemoteConfig:
    return RemoteConfig(**({"listen": "0.0.0.0:55555", "credentials": credentials} | kwargs))


def test_a_listener_is_encrypted_and_keeps_its_limits(folders: dict[str, str]) -> None:
    port = read_remote_port(remote(folders["named"], max_workers=3, max_message_mb=2))
    assert port.credentials is not None
    assert port.address == "0.0.0.0:55555"
    assert (port.max_workers, port.max_message_bytes) == (3, 2 * 1024 * 1024)
    assert port.hosts == ("localhost", "127.0.0.1", "::1", "learner.example.org", "10.0.0.1")


def test_plaintext_is_only_what_was_asked_for_and_still_wants_tokens(folders: dict[str, str]) -> None:
    port = read_remote_port(remote(folders["named"], insecure=True))
    assert port.credentials is None
    assert port.tokens.judge("pc", "a guess", WORKER) is Verdict.unknown
    with pytest.raises(ValueError, match=r"needs remote\.credentials.*Nobody joins without a token"):
        read_remote_port(RemoteConfig(listen="127.0.0.1:0", insecure=True))


def test_credentials_are_checked_before_anything_starts(folders: dict[str, str], tmp_path: Path) -> None:
    check_credentials(RemoteConfig())
    check_credentials(remote(folders["named"], relay="relay.example.org:55555"))
    for wrong, message in (
        (RemoteConfig(listen="0.0.0.0:1"), r"remote\.listen=0\.0\.0\.0:1 needs remote\.credentials"),
        (RemoteConfig(relay="relay:1"), r"remote\.relay=relay:1 needs remote\.credentials"),
        (RemoteConfig(relay="relay:1", credentials=str(tmp_path)), "ca.pem is missing"),
        (remote(str(tmp_path)), "server.pem is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            check_credentials(wrong)


def test_plaintext_beyond_this_machine_is_warned_about_at_every_start(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    config = remote(folders["named"], insecure=True)
    for _ in range(2):
        text, (warning,) = said(caplog, config, "0.0.0.0:55555")
        assert "0.0.0.0:55555 is NOT encrypted" in warning
        assert "tokens" in warning
        assert "(plaintext)" in text
        assert "remote.insecure=true" in text.splitlines()[-1]
    assert said(caplog, config, "127.0.0.1:55555")[1] == []


@pytest.mark.parametrize(
    ("folder", "address", "reached"),
    [
        ("named", "0.0.0.0:55555", "learner.example.org:55555"),
        ("numbered", "[::]:55555", "[fd00::7]:55555"),
        ("named", "10.0.0.1:55555", "10.0.0.1:55555"),
        ("unnamed", "127.0.0.1:40001", "127.0.0.1:40001"),
    ],
)
def test_the_command_names_an_address_that_the_certificate_has(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture, folder: str, address: str, reached: str
) -> None:
    text, warnings = said(caplog, remote(folders[folder]), address)
    command = f"python train.py task=TM20Lidar --worker remote.address={reached} remote.credentials=FOLDER"
    assert text.splitlines()[-1].strip() == command
    assert warnings == []


def test_a_certificate_that_nobody_elsewhere_can_trust_is_warned_about(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    text, (warning,) = said(caplog, remote(folders["unnamed"]), "0.0.0.0:55555")
    assert "no other machine will trust it" in warning
    assert "--hosts" in warning
    assert f"remote.address={socket.gethostname()}:55555" in text


def test_workers_of_a_relay_get_its_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce_relay(RemoteConfig(relay="relay.example.org:55555"), [])
    command = "python train.py task=NAME train=NAME --worker remote.address=relay.example.org:55555 "
    assert command + "remote.credentials=FOLDER" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "[::1]", "localhost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "learner.example.org"])
def test_everything_else_is_beyond_this_machine(host: str) -> None:
    assert not is_loopback(host)
