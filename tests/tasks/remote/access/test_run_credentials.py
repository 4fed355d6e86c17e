"""Encryption of a run's own workers on other machines: who gets through, over real TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tasks.remote.access.credentials import ClientCredentials
from tasks.remote.access.dialing import RefusedError
from tasks.remote.access.run_credentials import client_credentials, make_run_credentials
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link
from tasks.remote.worker.worker import WorkerConfig
from tests.tasks.remote.raw_worker import FINGERPRINT, SPEC, make_segment
from tests.tasks.remote.ray_nodes import own_address

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(own_address() == "127.0.0.1", reason="this machine has no address of its own"),
]

NAME = "worker-0.abc.1"


@pytest.fixture(scope="module")
def authority_and_gateway() -> Iterator[tuple[str, Gateway]]:
    made = make_run_credentials(own_address())
    assert made.authority is not None
    with Gateway(SPEC, FINGERPRINT, host=own_address(), credentials=made.server) as gateway:
        yield made.authority, gateway


def uplink(gateway: Gateway, token: str, credentials: ClientCredentials | None, role: str = "worker") -> Uplink:
    hello = link.Hello(NAME, 0, role, FINGERPRINT)
    return Uplink(gateway.address, token, hello, threading.Event(), credentials=credentials)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_stays_on_this_machine_is_not_encrypted(host: str) -> None:
    assert make_run_credentials(host) == (None, None)


def test_a_worker_of_the_run_delivers(authority_and_gateway: tuple[str, Gateway]) -> None:
    authority, gateway = authority_and_gateway
    worker = uplink(gateway, gateway.token, client_credentials(authority, NAME, gateway.token))
    worker.connect()
    worker.start(push=True)
    worker.send(make_segment(NAME, 0))
    (segment,) = gateway.receive(20.0)
    assert (segment.worker, segment.seq) == (NAME, 1)
    worker._stop.set()
    worker.close()


@pytest.mark.parametrize("role", ["evaluator", "lock_step"])
def test_every_role_of_the_run_may_join(authority_and_gateway: tuple[str, Gateway], role: str) -> None:
    authority, gateway = authority_and_gateway
    worker = uplink(gateway, gateway.token, client_credentials(authority, NAME, gateway.token), role)
    worker.connect()
    worker._stop.set()
    worker.close()


def test_who_has_no_token_of_the_run_is_refused(authority_and_gateway: tuple[str, Gateway]) -> None:
    authority, gateway = authority_and_gateway
    worker = uplink(gateway, "guess", client_credentials(authority, NAME, "guess"))
    with pytest.raises(RefusedError, match="the token is not the one of this run"):
        worker.connect()


def test_a_worker_trusts_only_the_learner_of_its_run(authority_and_gateway: tuple[str, Gateway]) -> None:
    _, gateway = authority_and_gateway
    other = make_run_credentials(own_address()).authority
    assert other is not None
    with pytest.raises(RefusedError, match="cannot be trusted"):
        uplink(gateway, gateway.token, client_credentials(other, NAME, gateway.token)).connect()


def test_plaintext_is_refused(authority_and_gateway: tuple[str, Gateway]) -> None:
    _, gateway = authority_and_gateway
    with pytest.raises(RefusedError, match="speaks TLS"):
        uplink(gateway, gateway.token, None).connect()


def test_the_authority_reaches_a_worker_with_its_configuration() -> None:
    config = WorkerConfig("10.0.0.1:1", "t", NAME, 0, 1, "worker", {}, authority="-----BEGIN\nlines\n")
    assert config.to_line().count("\n") == 1
    assert WorkerConfig.from_line(config.to_line()) == config
