"""Weights and evaluations through a relay: the newest only, to whom they belong, once."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.remote.access.credentials import ClientCredentials
from tasks.remote.relay.relay_hub import RelayHub
from tasks.remote.wire import link, parts
from tests.tasks.remote.raw_worker import (
    Folder,
    Reader,
    wait_report,
    wait_until,
)
from tests.tasks.remote.relay_site import Site, refuses

pytestmark = pytest.mark.timeout(120)


def test_a_slow_worker_sees_only_the_newest_weights(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        alice.hello()
        call = alice.weights()
        weights = {"w": np.zeros(1_000_000, np.float32)}
        for version in range(1, 51):
            relay_link.publish(weights, version)
        seen = []
        for message in parts.joined(call):
            seen.append(link.decode_weights(message).version)
            if seen[-1] == 50:
                break
        assert len(seen) < 50
        assert seen == sorted(seen)
        call.cancel()
        with site.worker(folder.bob) as late:
            late.hello()
            call = late.weights()
            assert link.decode_weights(next(parts.joined(call))).version == 50
            call.cancel()


def test_weights_come_again_to_a_relay_that_was_restarted(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with contextlib.ExitStack() as stack:
        with site.relay():
            relay_link = stack.enter_context(site.link(learner))
            relay_link.publish({"w": np.ones(3, np.float32)}, 7)
            wait_until(lambda: relay_link.is_connected)
        with site.relay(), site.worker(folder.alice) as alice:
            wait_until(lambda: not refuses(alice))
            call = alice.weights()
            assert link.decode_weights(next(call)).version == 7
            call.cancel()


def test_the_weights_of_the_learner_before_are_not_given_to_workers_of_the_next(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay(), site.worker(folder.alice) as alice:
        with site.link(learner) as relay_link:
            relay_link.publish({"w": np.ones(3, np.float32)}, 900)
            wait_until(lambda: not refuses(alice))
            call = alice.weights()
            assert link.decode_weights(next(call)).version == 900
            call.cancel()
        with site.link(learner) as relay_link:
            wait_until(lambda: relay_link.is_connected)
            call = alice.weights()
            time.sleep(0.3)
            relay_link.publish({"w": np.ones(3, np.float32)}, 1)
            assert link.decode_weights(next(call)).version == 1
            call.cancel()


def test_evaluations_are_driven_behind_the_relay(site: Site, folder: Folder, learner: ClientCredentials) -> None:
    report = EvaluationReport((EpisodeResult(4, True, 31.25, 100.5, 1.0, 3),), 9)
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        alice.hello()
        relay_link.request_evaluation({"w": np.ones(3, np.float32)}, 9, [4], clip=False)
        requests = alice.weights(link.REQUESTS)
        request = link.decode_evaluation_request(next(requests))
        assert (request.weights.version, request.seeds) == (9, (4,))
        # An answer to a learner that was here before is none.
        alice.unary("Report", link.encode_evaluation_report(report, 3))
        alice.unary("Report", link.encode_evaluation_report(report, request.id))
        assert wait_report(relay_link).to_json() == report.to_json()
        assert relay_link.poll_evaluation() is None
        requests.cancel()


def test_a_request_is_not_driven_twice_because_the_learner_dials_again(
    site: Site, folder: Folder, learner: ClientCredentials
) -> None:
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        alice.hello()
        relay_link.request_evaluation({"w": np.ones(3, np.float32)}, 1, [4])
        reader = Reader(alice.weights(link.REQUESTS))
        weights = Reader(alice.weights())
        wait_until(lambda: len(reader.messages) == 1)
        relay_link._call.cancel()
        wait_until(lambda: not relay_link.is_connected)
        wait_until(lambda: relay_link.is_connected)
        relay_link.publish({"w": np.ones(3, np.float32)}, 2)
        wait_until(lambda: weights.messages)
        assert len(reader.messages) == 1


def test_weights_that_did_not_arrive_are_sent_again(
    site: Site, folder: Folder, learner: ClientCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = RelayHub.publish
    failures = [OSError("no luck"), OSError("no luck")]

    def publish_with_bad_luck(hub: RelayHub, message: bytes) -> None:
        if failures:
            raise failures.pop()
        publish(hub, message)

    monkeypatch.setattr(RelayHub, "publish", publish_with_bad_luck)
    with site.relay(), site.link(learner) as relay_link, site.worker(folder.alice) as alice:
        wait_until(lambda: relay_link.is_connected)
        relay_link.publish({"w": np.ones(3, np.float32)}, 3)
        alice.hello()
        reader = Reader(alice.weights())
        wait_until(lambda: reader.messages)
        assert link.decode_weights(reader.messages[0]).version == 3
