"""Tests of the fault suite itself: the audit notices lost, doubled and damaged rows, the proxy breaks connections."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from algos.replay.storage import ReplayStorage
from tasks.experience.samples import Segment
from tests.faults import messages, table
from tests.faults.audit import Account, StoredRows, account_of
from tests.faults.learner_process import CAPACITY
from tests.faults.numbered_env import NumberedEnv, make_spec, numbers_of, picture_of
from tests.faults.proxy import TcpProxy

PICTURE_BYTES = 16
FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "faults.md"


def stored(folder: Path, *segments: Segment) -> StoredRows:
    with ReplayStorage(folder, make_spec(PICTURE_BYTES), CAPACITY) as storage:
        for segment in segments:
            storage.append(segment)
    return StoredRows(folder, PICTURE_BYTES)


def segment(seq: int) -> Segment:
    return messages.segment("w0.1a2b3c4d", seq, PICTURE_BYTES)


def test_rows_stored_once_are_exact(tmp_path: Path) -> None:
    rows = stored(tmp_path, segment(1), segment(2), segment(3))
    assert rows.account({"w0": 48}) == Account(sent=48, stored=48, lost=0, doubled=0)
    assert not rows.damage


def test_missing_rows_are_lost(tmp_path: Path) -> None:
    rows = stored(tmp_path, segment(1), segment(3))
    assert rows.account({"w0": 64}) == Account(sent=64, stored=32, lost=32, doubled=0)
    assert rows.account({"w0": 64, "w1": 10}).lost == 42


def test_rows_stored_twice_are_doubled(tmp_path: Path) -> None:
    rows = stored(tmp_path, segment(1), replace(segment(1), seq=2), segment(3))
    account = rows.account({"w0": 48})
    assert (account.lost, account.doubled) == (16, 16)
    assert not account.is_exact


@pytest.mark.parametrize(("numbers", "message"), [([1, 2, 9], "never sent"), ([0, 1], "never sent"), ([2, 1], "order")])
def test_impossible_row_numbers_are_noticed(numbers: list[int], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        account_of(np.array(numbers), 3)


def test_damaged_rows_are_noticed(tmp_path: Path) -> None:
    wrong_picture = {**segment(1).frames, "picture": segment(2).frames["picture"]}
    rows = stored(
        tmp_path,
        replace(segment(1), frames=wrong_picture),
        replace(segment(2), reward=segment(1).reward),
        replace(segment(3), stream=7),
    )
    assert [text.partition(": ")[2] for text in rows.damage] == [
        "a picture is not that of its row",
        "a reward is not that of its row",
        "stream 7 begins in the middle of an episode",
    ]


def test_the_environment_numbers_its_rows(tmp_path: Path) -> None:
    env = NumberedEnv(length=2, picture_bytes=4, first=7, ledger=str(tmp_path / "ledger"))
    observations = [env.reset()[0], *(env.step(env.action_space.sample())[0] for _ in range(2)), env.reset()[0]]
    assert [int(numbers_of(observation["number"])[0]) for observation in observations] == [7, 8, 9, 10]
    assert (observations[1]["picture"] == picture_of(np.array([8]), 4)[0]).all()


def test_a_fault_without_a_row_is_missing() -> None:
    first, *others = table.FAULTS
    rows = [table.Row(fault, Account(1, 1, 0, 0), 1.0, "") for fault in others]
    assert table.missing(rows) == [first]
    assert len(table.as_markdown(rows).splitlines()) == len(rows) + 2


def test_every_fault_of_the_suite_is_a_row_of_the_page() -> None:
    marked = {
        name for path in FOLDER.glob("test_*.py") for name in re.findall(r'mark\.fault\("(.+)"\)', path.read_text())
    }
    assert marked == set(table.FAULTS)
    _, page = PAGE.read_text(encoding="utf-8").split("## The faults")
    described, counted = page.split("## Results")
    header, _, *rows = [line.strip("| ").split(" | ") for line in counted.splitlines() if line.startswith("|")]
    assert all(f"| {name} | {what} |" in described for name, what in table.FAULTS.items())
    assert [row[0] for row in rows] == list(table.FAULTS)
    for row in rows:
        counts = dict(zip(header, row, strict=False))
        assert int(counts["sent"].replace(",", "")) > 0
        assert (counts["lost"], counts["doubled"]) == ("0", "0")


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    rows = [table.Row(fault, Account(1_000, 1_000, 0, 0), 1.0, "a remark") for fault in table.FAULTS]
    table.write_page(tmp_path / "page.md", rows, table.conditions())
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.count("| 1,000 | 1,000 | 0 | 0 | 0 | 1 | a remark |") == len(table.FAULTS)
    assert text.partition("## The faults")[0] == PAGE.read_text(encoding="utf-8").partition("## The faults")[0]


# --- the network ---


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)
        yield server


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[TcpProxy]:
    with TcpProxy(f"127.0.0.1:{server.getsockname()[1]}") as proxy:
        yield proxy


@contextmanager
def connection(proxy: TcpProxy, server: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of an open connection."""
    with dial(proxy) as client, closing(server.accept()[0]) as peer:
        peer.settimeout(10.0)
        client.sendall(b"?")
        assert peer.recv(1) == b"?"
        yield client, peer


def dial(proxy: TcpProxy) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), 10.0)


def test_the_proxy_passes_everything_on_in_order(proxy: TcpProxy, server: socket.socket) -> None:
    data = np.random.default_rng(0).bytes(1_000_000)
    with connection(proxy, server) as (client, peer):
        threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
        received = b""
        while len(received) < len(data):
            received += peer.recv(65_536)
    assert received == data


def test_the_proxy_resets_open_and_new_connections(proxy: TcpProxy, server: socket.socket) -> None:
    with connection(proxy, server) as (client, peer):
        proxy.cut()
        for end in (client, peer):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with pytest.raises(ConnectionResetError), dial(proxy) as late:
            late.recv(1)
    proxy.restore()
    with connection(proxy, server):
        pass


def test_the_proxy_holds_data_back_and_delivers_it_later(proxy: TcpProxy, server: socket.socket) -> None:
    with connection(proxy, server) as (client, peer):
        proxy.swallow()
        client.sendall(b"x")
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        proxy.restore()
        peer.settimeout(10.0)
        assert peer.recv(1) == b"x"


@pytest.mark.parametrize("side", ["client", "server"])
def test_the_proxy_leaves_one_side_with_a_silent_connection(proxy: TcpProxy, server: socket.socket, side: str) -> None:
    with connection(proxy, server) as (client, peer):
        proxy.strand("client" if side == "client" else "server")
        left, gone = (client, peer) if side == "client" else (peer, client)
        with pytest.raises(ConnectionResetError):
            gone.recv(1)
        left.settimeout(0.3)
        left.sendall(b"anybody?")
        with pytest.raises(TimeoutError):
            left.recv(1)
        with connection(proxy, server):
            pass
