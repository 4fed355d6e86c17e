"""Fixtures of the tests of the relay."""

from __future__ import annotations

import pytest

from tasks.remote.access.credentials import ClientCredentials, load_client
from tasks.remote.relay import relay_learner
from tests.tasks.remote.raw_worker import Folder
from tests.tasks.remote.relay_site import Site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
def learner(folder: Folder) -> ClientCredentials:
    return load_client(folder.path / "learner")


@pytest.fixture
def site(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(relay_learner, "STATUS_EVERY_S", 0.1)
    return Site(folder)
