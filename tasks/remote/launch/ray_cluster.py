"""Joins a Ray cluster, or starts one for this run alone; says what is wrong where that cannot be.

Anybody who may use a Ray cluster may run any code on its nodes, so one that requires no token is refused. Called
by ``ray_process``, in whose process Ray then is.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

LOCAL = "local"
"""The address of a cluster that is started for this run."""

_PROBE_S = 3.0
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_IS_NODE = (
    "this machine must be a node of the cluster ('ray start --head', or 'ray start --address=HOST:PORT'); "
    "ray.address=local starts a cluster of its own"
)
_TOKEN_PLACES = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"


class NoClusterError(RuntimeError):
    """Raised when there is no cluster that can be used; says why and what to do."""


def join(address: str, namespace: str, room: Mapping[str, float]) -> str:
    """Connects this process to the cluster; returns the address under which its nodes reach this machine.

    Args:
        address: local, auto or host:port of the head.
        namespace: Under which its actors are named.
        room: What a cluster of its own has for workers.

    Raises:
        NoClusterError: There is none, it does not let this process in, or it lets in anyone.
    """
    import ray

    options: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "configure_logging": False}
    try:
        if address == LOCAL:
            _start(room, options)
        else:
            _check(address)
            ray.init(address, **options)
            # Only now it is known what ``auto`` has found.
            _check_is_closed(ray.get_runtime_context().gcs_address)
    except NoClusterError:
        raise
    except ray.exceptions.AuthenticationError as error:
        raise NoClusterError(f"{_one_line(error)}; the token of the cluster belongs in {_TOKEN_PLACES}") from error
    except ConnectionError as error:
        raise NoClusterError(f"{_one_line(error)}; {_IS_NODE}") from error
    except Exception as error:  # Ray raises whatever it likes.
        raise NoClusterError(_one_line(error)) from error
    return str(ray.util.get_node_ip_address())


def _start(room: Mapping[str, float], options: Mapping[str, Any]) -> None:
    """A cluster of one node. On one machine there is nothing to share out: all workers have room, as without Ray."""
    import ray

    own = {name: math.ceil(amount) for name, amount in room.items() if name not in ("CPU", "GPU", "memory")}
    ray.init(
        LOCAL,
        num_cpus=max(math.ceil(room.get("CPU", 0.0)), 1),
        resources=own,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        **options,
    )


def _check(address: str) -> None:
    """Finds out quickly, and in words, what Ray would find out in a minute and without them."""
    host, separator, port = address.rpartition(":")
    if not separator:
        return
    try:
        socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), _PROBE_S).close()
    except OSError as error:
        raise NoClusterError(f"{address} does not answer: {error}; {_IS_NODE}") from error
    if _asks_for_token() and _answer(address, _token()) is grpc.StatusCode.UNAUTHENTICATED:
        raise NoClusterError(f"{address} does not know the token of this machine, which is in {_TOKEN_PLACES}")


def _check_is_closed(address: str) -> None:
    """Refuses a cluster that answers who shows no token. Ray itself does not notice, and later waits for ever."""
    if _asks_for_token() and _answer(address, None) is grpc.StatusCode.OK:
        raise NoClusterError(
            f"the cluster at {address} requires no token, so anybody who reaches it can run code on all of its "
            "nodes; start it with RAY_AUTH_MODE=token in the environment of every 'ray start', or, where only "
            "trusted machines reach it, set RAY_AUTH_MODE=disabled here, too"
        )


def _asks_for_token() -> bool:
    """Whether it is by its token that a cluster lets in whom it trusts; with Ray's TLS it is by certificate, too."""
    return os.environ.get("RAY_AUTH_MODE") == "token" and os.environ.get("RAY_USE_TLS") in (None, "", "0")


def _answer(address: str, token: str | None) -> grpc.StatusCode:
    """What the head answers to the question whether it is there."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=_PROBE_S, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def _token() -> str | None:
    """The token of this account, from where Ray takes it."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token:
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
