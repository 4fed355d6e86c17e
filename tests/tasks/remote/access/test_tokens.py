"""tokens.json: what is accepted, what is revoked while it is open, and what a damaged file does."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.access.tokens import (
    LEARNER,
    WORKER,
    RunToken,
    TokenBook,
    TokenEntry,
    Verdict,
    hash_token,
    is_name,
    new_token,
    read_tokens,
    write_tokens,
)
from tests.tasks.remote.raw_worker import accepts


def entry(name: str, token: str, role: str = WORKER) -> TokenEntry:
    return TokenEntry(name, role, hash_token(token))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    write_tokens(path, [entry("alice", "secret-a"), entry("bob", "secret-b"), entry("learner", "secret-t", LEARNER)])
    return path


@pytest.mark.parametrize(
    ("name", "token", "role", "verdict"),
    [
        ("alice", "secret-a", WORKER, Verdict.accepted),
        ("bob", "secret-b", WORKER, Verdict.accepted),
        ("learner", "secret-t", LEARNER, Verdict.accepted),
        ("alice", "guessed", WORKER, Verdict.unknown),
        ("nobody", "guessed", WORKER, Verdict.unknown),
        ("alice", "", WORKER, Verdict.unknown),
        ("alice", "secret-A", WORKER, Verdict.unknown),
        ("alice", "secret-a" + "x" * 1000, WORKER, Verdict.unknown),
        ("alice", "\ud800", WORKER, Verdict.unknown),
        ("alice", "secret-b", WORKER, Verdict.another_name),
        ("nobody", "secret-b", WORKER, Verdict.another_name),
        ("", "secret-b", WORKER, Verdict.another_name),
        ("alice", "secret-a", LEARNER, Verdict.another_role),
        ("learner", "secret-t", WORKER, Verdict.another_role),
        ("alice", "secret-t", WORKER, Verdict.another_name),
    ],
)
def test_only_the_right_token_for_the_name_and_role_is_accepted(
    path: Path, name: str, token: str, role: str, verdict: Verdict
) -> None:
    book = TokenBook(path)
    assert book.judge(name, token, role) is verdict
    assert accepts(book, name, token, role) is (verdict is Verdict.accepted)


def test_the_file_holds_hashes_only_and_is_its_owners(path: Path) -> None:
    text = path.read_text()
    assert "secret" not in text
    assert hashlib.sha256(b"secret-a").hexdigest() in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["tokens.json"]


def test_an_entry_that_is_taken_out_is_revoked_at_the_next_call(path: Path) -> None:
    book = TokenBook(path)
    assert accepts(book, "alice", "secret-a", WORKER)
    write_tokens(path, [entry("bob", "secret-b")])
    assert book.judge("alice", "secret-a", WORKER) is Verdict.revoked
    assert accepts(book, "bob", "secret-b", WORKER)
    assert book.judge("alice", "guessed", WORKER) is Verdict.unknown


def test_a_token_that_was_replaced_is_revoked_and_the_new_one_accepted(path: Path) -> None:
    book = TokenBook(path)
    write_tokens(path, [entry("alice", "secret-2")])
    assert book.judge("alice", "secret-a", WORKER) is Verdict.revoked
    assert accepts(book, "alice", "secret-2", WORKER)


def test_an_edit_in_place_is_noticed_even_within_a_tick_of_the_clock(path: Path) -> None:
    book = TokenBook(path)
    text = path.read_text()
    times = path.stat().st_mtime_ns
    for round_ in range(20):
        accepted = round_ % 2 == 1
        path.write_text(text if accepted else text.replace("alice", "alicf"))
        os.utime(path, ns=(times, times))
        assert accepts(book, "alice", "secret-a", WORKER) is accepted


@pytest.mark.parametrize("damage", ["missing", "empty", "not json", "wrong version", "wrong entry", "a folder"])
def test_while_the_file_is_damaged_nobody_is_let_in_and_afterwards_they_are(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    book = TokenBook(path)
    content = path.read_bytes()
    path.unlink()
    texts = {
        "empty": "",
        "not json": "[",
        "wrong version": '{"version": 2, "tokens": []}',
        "wrong entry": '{"version": 1, "tokens": [{"name": "alice"}]}',
    }
    if damage == "a folder":
        path.mkdir()
    elif damage in texts:
        path.write_text(texts[damage])
    for _ in range(3):
        assert book.judge("alice", "secret-a", WORKER) is Verdict.unreadable
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
    assert str(path) in caplog.text
    if path.is_dir():
        path.rmdir()
    path.write_bytes(content)
    assert accepts(book, "alice", "secret-a", WORKER)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([{"name": "a b", "role": WORKER, "sha256": "0" * 64}], r"tokens\[0\]: name must be letters"),
        ([{"name": "../x", "role": WORKER, "sha256": "0" * 64}], "name must be letters"),
        (
            [{"name": "a", "role": "root", "sha256": "0" * 64}],
            r"role must be one of \['worker', 'trainer'\], got 'root'",
        ),
        ([{"name": "a", "role": WORKER, "sha256": "ABC"}], "sha256 must be 64 hexadecimal digits"),
        ([{"name": "a", "role": WORKER}], "must have exactly"),
        (["alice"], "must have exactly"),
        ([{"name": "a", "role": WORKER, "sha256": "0" * 64, "token": "x"}], "must have exactly"),
    ],
)
def test_a_damaged_file_is_refused_at_start_naming_the_file(tmp_path: Path, tokens: list[Any], message: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"version": 1, "tokens": tokens}))
    with pytest.raises(ValueError, match=message) as caught:
        TokenBook(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read"):
        TokenBook(tmp_path / "none.json")


def test_writing_and_reading_agree(path: Path) -> None:
    entries = [entry(f"w{i}", new_token()) for i in range(50)]
    write_tokens(path, entries)
    assert read_tokens(path) == entries


def test_tokens_are_long_random_and_plain_text() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) >= 43 and token.isascii() and token.strip() == token for token in tokens)


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a/b", "a b", "ä", "a" * 65, "a\n"])
def test_what_cannot_name_a_worker(name: str) -> None:
    assert not is_name(name)
    assert is_name("gaming-pc_1")


def test_the_token_of_a_run_is_good_for_any_name_and_for_workers_only() -> None:
    tokens = RunToken("secret")
    assert tokens.judge("worker-0", "secret", WORKER) is Verdict.accepted
    assert tokens.judge("worker-1", "secret", WORKER) is Verdict.accepted
    assert tokens.judge("worker-1", "guessed", WORKER) is Verdict.unknown
    assert tokens.judge("worker-1", "secret", LEARNER) is Verdict.unknown
