"""--make-credentials: what is made, what is kept when it is called again, and what OpenSSL says of it."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.remote.access import certificates
from tasks.remote.access.credentials import load_client, load_server, make_credentials
from tasks.remote.access.tokens import LEARNER, WORKER, TokenBook, read_tokens, write_tokens
from tests.tasks.remote.raw_worker import accepts

HOSTS = ["learner.example.org", "10.0.0.1", "[fd00::1]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_credentials(tmp_path / "credentials", HOSTS, ["alice", "bob"])
    return tmp_path / "credentials"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_everything_that_is_promised_is_made(folder: Path) -> None:
    assert sorted(contents(folder)) == sorted(
        [
            *("ca/ca.pem", "ca/ca.key"),
            *(f"learner/{name}" for name in ("ca.pem", "server.pem", "server.key", "tokens.json", "name", "token")),
            *(f"relay/{name}" for name in ("ca.pem", "server.pem", "server.key", "tokens.json")),
            *(f"workers/{worker}/{name}" for worker in ("alice", "bob") for name in ("ca.pem", "name", "token")),
        ]
    )


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_nobody_else_can_read_any_of_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_credentials(tmp_path / "c", [], ["alice"])
        make_credentials(tmp_path / "c", ["10.0.0.1"], ["bob"])
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "c").rglob("*") if path.is_file()}
    folders = {
        stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "c", *(tmp_path / "c").rglob("*")) if path.is_dir()
    }
    assert (modes, folders) == ({0o600}, {0o700})


def test_the_authority_signs_two_servers_and_nothing_further(folder: Path) -> None:
    authority = certificate(folder / "ca/ca.pem")
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    now = datetime.datetime.now(datetime.UTC)
    for server in ("learner", "relay"):
        made = certificate(folder / server / "server.pem")
        made.verify_directly_issued_by(authority)
        key = made.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert 700 < (made.not_valid_after_utc - now).days < 740
    assert (
        certificate(folder / "learner/server.pem").public_key() != certificate(folder / "relay/server.pem").public_key()
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("option", "host", "is_good"),
    [
        ("-verify_hostname", "learner.example.org", True),
        ("-verify_hostname", "localhost", True),
        ("-verify_ip", "10.0.0.1", True),
        ("-verify_ip", "fd00::1", True),
        ("-verify_hostname", "elsewhere.example.org", False),
        ("-verify_ip", "10.0.0.2", False),
    ],
)
def test_openssl_finds_the_certificate_good_for_these_hosts_only(
    folder: Path, option: str, host: str, is_good: bool
) -> None:
    arguments = ["-CAfile", str(folder / "ca/ca.pem"), "-purpose", "sslserver", "-x509_strict", option, host]
    result = subprocess.run(
        ["openssl", "verify", *arguments, str(folder / "learner/server.pem")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (result.returncode == 0) is is_good, result.stdout + result.stderr


def test_a_client_of_the_standard_library_trusts_it_and_no_other(folder: Path, tmp_path: Path) -> None:
    make_credentials(tmp_path / "other", [], [])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "learner/server.pem", folder / "learner/server.key")
    for authority, is_trusted in ((folder / "workers/alice/ca.pem", True), (tmp_path / "other/ca/ca.pem", False)):
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=_serve_once, args=(server, theirs))
        thread.start()
        client = ssl.create_default_context(cafile=str(authority))
        if is_trusted:
            with client.wrap_socket(ours, server_hostname="learner.example.org") as connection:
                assert connection.read() == b"hello"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                client.wrap_socket(ours, server_hostname="learner.example.org")
        ours.close()
        thread.join(10)


def _serve_once(context: ssl.SSLContext, end: socket.socket) -> None:
    try:
        with context.wrap_socket(end, server_side=True) as connection:
            connection.write(b"hello")
    except OSError:
        end.close()


def test_tokens_are_known_where_they_are_needed_and_stored_hashed(folder: Path) -> None:
    learner, relay = TokenBook(folder / "learner/tokens.json"), TokenBook(folder / "relay/tokens.json")
    for name in ("alice", "bob"):
        token = (folder / "workers" / name / "token").read_text().strip()
        assert (folder / "workers" / name / "name").read_text().strip() == name
        assert accepts(learner, name, token, WORKER)
        assert accepts(relay, name, token, WORKER)
        stored = [path for path, content in contents(folder).items() if token.encode() in content]
        assert stored == [f"workers/{name}/token"]
    token = (folder / "learner/token").read_text().strip()
    assert accepts(relay, "learner", token, LEARNER)
    assert not accepts(relay, "learner", token, WORKER)
    assert not accepts(learner, "learner", token, LEARNER)


def test_calling_it_again_changes_nothing(folder: Path) -> None:
    before = contents(folder)
    make_credentials(folder, HOSTS, ["alice", "bob"])
    make_credentials(folder)
    assert contents(folder) == before


def test_calling_it_again_adds_workers_and_keeps_the_others(folder: Path) -> None:
    before = contents(folder)
    text = make_credentials(folder, [], ["carol"])
    after = contents(folder)
    assert "workers/carol/token made" in text
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {
        "learner/tokens.json",
        "relay/tokens.json",
        *(f"workers/carol/{name}" for name in ("ca.pem", "name", "token")),
    }
    assert [e.name for e in read_tokens(folder / "learner/tokens.json")] == ["alice", "bob", "carol"]


def test_calling_it_again_adds_hosts_and_keeps_authority_and_tokens(folder: Path) -> None:
    before = contents(folder)
    make_credentials(folder, ["second.example.org"], [])
    after = contents(folder)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"{server}/server.{end}" for server in ("learner", "relay") for end in ("pem", "key")}
    names = certificate(folder / "learner/server.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "learner.example.org", "second.example.org"]
    load_server(folder / "learner")


def test_a_revoked_worker_gets_a_new_token_only_when_it_is_named(folder: Path) -> None:
    old = (folder / "workers/alice/token").read_text()
    for server in ("learner", "relay"):
        entries = read_tokens(folder / server / "tokens.json")
        write_tokens(folder / server / "tokens.json", [e for e in entries if e.name != "alice"])
    make_credentials(folder, [], ["bob"])
    assert (folder / "workers/alice/token").read_text() == old
    assert "revoked" in make_credentials(folder, [], ["alice"])
    new = load_client(folder / "workers/alice").token
    book = TokenBook(folder / "relay/tokens.json")
    assert accepts(book, "alice", new, WORKER)
    assert not accepts(book, "alice", old.strip(), WORKER)


def test_a_certificate_that_will_expire_or_was_signed_by_another_is_made_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_credentials(tmp_path / "other", [], [])
    shutil.copy(tmp_path / "other/learner/server.pem", folder / "learner/server.pem")
    shutil.copy(tmp_path / "other/learner/server.key", folder / "learner/server.key")
    make_credentials(folder)
    certificate(folder / "learner/server.pem").verify_directly_issued_by(certificate(folder / "ca/ca.pem"))
    monkeypatch.setattr(certificates, "SERVER_DAYS", 30)
    make_credentials(folder, ["third.example.org"])
    assert (
        certificate(folder / "relay/server.pem").not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    ).days < 31
    monkeypatch.undo()
    make_credentials(folder)
    assert (
        certificate(folder / "relay/server.pem").not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    ).days > 700


@pytest.mark.parametrize(
    ("hosts", "workers", "message"),
    [
        (["a:55555"], [], r"a host must be a DNS name or an IP address, without port, got 'a:55555'"),
        (["10.0.0.256"], [], "got '10.0.0.256'"),
        ([""], [], "got ''"),
        (["a b"], [], "got 'a b'"),
        (["ex_ample.org\n.evil"], [], "a host must be"),
        ([], ["a.b"], r"a worker's name must be letters, digits, _ and - .*got 'a\.b'"),
        ([], ["../../etc"], "a worker's name"),
        ([], ["Alice", "alice"], "differ in case only"),
    ],
)
def test_what_is_not_a_host_or_a_name_is_refused_before_anything_is_made(
    tmp_path: Path, hosts: list[str], workers: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_credentials(tmp_path / "c", hosts, workers)
    assert list(tmp_path.iterdir()) == []


def test_half_an_authority_is_refused_and_not_replaced(folder: Path) -> None:
    (folder / "ca/ca.key").unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match=r"ca\.key is missing while the rest of .* is there; restore it"):
        make_credentials(folder, [], ["carol"])
    assert contents(folder) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=str(tmp_path / "file")):
        make_credentials(tmp_path / "file" / "c")


# --- loading ---


def test_what_was_made_can_be_loaded_and_does_not_show_its_secrets(folder: Path) -> None:
    client = load_client(folder / "workers/alice")
    assert client.name == "alice"
    assert client.token == (folder / "workers/alice/token").read_text().strip()
    assert client.token not in repr(client)
    assert load_client(folder / "learner").name == "learner"
    assert accepts(load_server(folder / "learner").tokens, "alice", client.token, WORKER)
    assert accepts(load_server(folder / "relay").tokens, "alice", client.token, WORKER)


def test_a_serving_process_keeps_its_certificate_because_grpc_crashes_when_it_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer: list[Callable[[], object]] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda _, fetch: newer.append(fetch))
    _ = load_server(folder / "learner").channel
    assert newer[0]() is None


@pytest.mark.parametrize("name", ["server.pem", "server.key", "tokens.json"])
def test_a_missing_or_damaged_file_of_a_server_is_named(folder: Path, name: str) -> None:
    path = folder / "learner" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=str(path)):
        load_server(folder / "learner")
    path.unlink()
    with pytest.raises(ValueError, match=str(path)):
        load_server(folder / "learner")


@pytest.mark.parametrize("name", ["ca.pem", "name", "token"])
def test_a_missing_or_damaged_file_of_a_worker_is_named_and_not_shown(folder: Path, name: str) -> None:
    path = folder / "workers/alice" / name
    path.write_bytes(b"half of a secret!")
    with pytest.raises(ValueError, match=str(path)) as caught:
        load_client(folder / "workers/alice")
    assert name != "token" or "half" not in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match=str(path)):
        load_client(folder / "workers/alice")


def test_a_key_of_another_certificate_is_refused(folder: Path) -> None:
    shutil.copy(folder / "relay/server.key", folder / "learner/server.key")
    with pytest.raises(ValueError, match=r"learner/server\.key does not belong to"):
        load_server(folder / "learner")


def test_an_expired_certificate_is_refused_with_its_dates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=800)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    with pytest.raises(ValueError, match=r"server\.pem is valid from .* renew it with --make-credentials"):
        load_server(folder / "learner")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for load in (load_server, load_client):
        with pytest.raises(ValueError, match=r"remote\.credentials: there is no folder .*nowhere"):
            load(tmp_path / "nowhere")


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_secret_that_others_can_read_is_warned_about(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_server(folder / "learner")
    load_client(folder / "workers/alice")
    assert caplog.text == ""
    (folder / "learner/server.key").chmod(0o644)
    (folder / "workers/alice/token").chmod(0o640)
    load_server(folder / "learner")
    load_client(folder / "workers/alice")
    assert [record.args[0].name for record in caplog.records] == ["server.key", "token"]  # type: ignore[index,union-attr]
