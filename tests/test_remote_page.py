"""docs/remote.md agrees with the program: keys and their defaults, messages, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum

import pytest

from tasks.remote.access import listener
from tasks.remote.config import RemoteConfig, RemoteWorkerConfig
from tasks.remote.station import calls, outbox_uplink
from tests.test_docs import ROOT, said_by_the_program, text_of

PAGE = ROOT / "docs" / "remote.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading."""
    section = text_of(PAGE).partition(f"## {heading}\n")[2]
    lines = section[section.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def shown(value: object) -> str:
    """A default as the page writes it."""
    if value is None:
        return "none"
    text = str(value.name if isinstance(value, Enum) else value).lower()
    return f"`{text}`" if not isinstance(value, int) or isinstance(value, bool) else text


def described() -> Iterator[tuple[str, str]]:
    """Each key and its default, from both tables."""
    for line in text_of(PAGE).partition("## Keys\n")[2].partition("## Security")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        keys = re.findall(r"`((?:remote|worker)\.\w+)`", cells[0])
        defaults = cells[2 if cells[0].startswith("`remote") else 1].split(", ") if keys else []
        yield from zip(keys, defaults, strict=True)


@pytest.mark.parametrize(("group", "schema"), [("remote", RemoteConfig), ("worker", RemoteWorkerConfig)])
def test_every_key_is_described_with_its_default(group: str, schema: type) -> None:
    default = schema()
    told = {key.partition(".")[2]: text for key, text in described() if key.startswith(f"{group}.")}
    assert set(told) == {entry.name for entry in fields(schema)}
    depends = {"name", "outbox"}  # what stands for null there is said in words
    wrong = {name: text for name, text in told.items() if name not in depends and text != shown(getattr(default, name))}
    assert not wrong


def test_the_messages_of_the_table_exist() -> None:
    quoted = [quote for row in rows("When it does not connect") for quote in re.findall(r"`([^`]+)`", row[0])]
    assert len(quoted) >= 10
    said = list(said_by_the_program())
    assert [quote for quote in quoted if not any(quote in text for text in said)] == []


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    options = dict(listener._REMOTE_OPTIONS)
    text = " ".join(text_of(PAGE).split())
    assert "closed after ten seconds without a handshake" in text
    assert options["grpc.server_handshake_timeout_ms"] == 10_000
    assert "a minute without a call" in text
    assert options["grpc.max_connection_idle_ms"] == 60_000
    assert "kept alive every 20 seconds" in text
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert "end within five seconds" in text
    assert calls.CHECK_S + calls.GRACE_S < 5.0
    assert "Workers reconnect after 0.1 s and double the pause up to 5 s" in text_of(ROOT / "docs" / "scale.md")
    assert (outbox_uplink._FIRST_PAUSE_S, outbox_uplink._LONGEST_PAUSE_S) == (0.1, 5.0)
