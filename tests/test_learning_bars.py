"""Learning on Gymnasium's tasks as published, three seeds each, all must hold: ``pytest -m slow``, half an hour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.outcome import read
from benchmarks.learning.studies import STUDIES
from benchmarks.learning.trainings import ROOT, Training, run, trainings

CASES = [training for name in ("pendulum", "inverted_pendulum") for training in trainings(name, STUDIES[name])]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("training", CASES, ids=lambda training: training.experiment)
def test_it_reaches_the_published_results(training: Training, tmp_path: Path) -> None:
    if training.study == "inverted_pendulum":
        pytest.importorskip("mujoco")
    study = STUDIES[training.study]
    assert not run([training], tmp_path, jobs=1)
    folder = training.folder(ROOT / "runs")
    assert folder is not None
    outcome = read(training, study, folder)
    returns = [episode["return"] for episode in outcome.results["episodes"]]
    assert len(returns) == 10
    assert np.mean(returns) >= study.bars[training.arm]
