"""Trains the arms of a study with several seeds, then prints their table and draws their curves.

    python -m benchmarks.learning lidar_short [--arms SAC REDQ] [--seeds 0 1 2] [--jobs 1] [--only-report]

A training that has finished in ``runs`` is not repeated. Each arm is a command of train.py, printed as it starts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.learning.outcome import read
from benchmarks.learning.report import draw, table
from benchmarks.learning.studies import STUDIES
from benchmarks.learning.trainings import ROOT, run, trainings


def main() -> int:
    """Trains what is missing and reports what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--arms", nargs="+", default=[], help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="other seeds")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; more share the cores")
    parser.add_argument("--only-report", action="store_true", help="train nothing")
    parser.add_argument("--picture", type=Path, help="file; default: docs/images/learning_STUDY.png")
    options = parser.parse_args()
    study, runs = STUDIES[options.study], ROOT / "runs"
    unknown = sorted(set(options.arms) - set(study.arms))
    if unknown:
        parser.error(f"--arms must be among {', '.join(study.arms)}, got {', '.join(unknown)}")
    every = list(trainings(options.study, study, options.arms, options.seeds))
    if not options.only_report:
        missing = [training for training in every if training.folder(runs) is None]
        run(missing, runs / "logs", options.jobs)
    found = [(training, training.folder(runs)) for training in every]
    outcomes = [read(training, study, folder) for training, folder in found if folder is not None]
    if not outcomes:
        print(f"no finished training of {options.study} in {runs}")
        return 1
    print(table(outcomes))
    picture = options.picture or ROOT / "docs" / "images" / f"learning_{options.study}.png"
    draw(study, outcomes, picture)
    print(f"drawn: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
