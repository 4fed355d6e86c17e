"""Evaluation in a worker process: requests in, reports out, by ``tasks.acting.evaluation.evaluate``.

Used by the evaluator process, and by the one worker of a single game, local or remote.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import gymnasium

from tasks.acting.evaluation import ClipRecorder, evaluate
from tasks.acting.rollout import Policy
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link


class Evaluator:
    """Answers evaluation requests by driving an environment with a policy of its own.

    Args:
        policy: Chooses the actions; nobody else's.
        uplink: Brings requests and takes reports.
        env: The environment; between two episodes when it is used here.
        stop: Abandons an evaluation.
        make_clip: Makes what takes pictures of the first episode, where they are wanted.
    """

    def __init__(
        self,
        policy: Policy,
        uplink: Uplink,
        env: gymnasium.Env,
        stop: threading.Event,
        make_clip: Callable[[], ClipRecorder] = ClipRecorder,
    ) -> None:
        self._policy = policy
        self._uplink = uplink
        self._env = env
        self._stop = stop
        self._make_clip = make_clip

    @property
    def has_request(self) -> bool:
        """Whether a request waits."""
        return self._uplink.has_request

    def answer_waiting(self) -> None:
        """Answers the request that waits, if there is one."""
        message = self._uplink.take_request()
        if message is not None:
            self.answer(message)

    def answer(self, message: bytes | bytearray) -> None:
        """Drives the episodes that are asked for and reports them, unless stopped before."""
        request = link.decode_evaluation_request(message)
        self._policy.load_weights(request.weights.arrays, request.weights.version)
        clip = self._make_clip() if request.clip else None
        report = evaluate(self._env, self._policy, request.seeds, clip=clip, stop=self._stop.is_set)
        if not self._stop.is_set():
            self._uplink.report(link.encode_evaluation_report(report, request.id))
