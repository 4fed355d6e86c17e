"""Adds an entry to the zoo: a small checkpoint, the results of ten seeded episodes, the command that trained it.

    python -m benchmarks.zoo runs/<run> NAME [--command "python train.py ..."] [task.track=... play.episodes=...]

RUN is a run folder, whose best checkpoint is taken, or a checkpoint. What follows are words for --play.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from algos.run import zoo
from algos.run.checkpoint import load_checkpoint
from algos.run.zoo import COMMAND, POLICY, RESULTS
from benchmarks.zoo.entry import driven_results, save_policy, training_command
from tasks.acting.evaluation import write_results


def main(argv: Sequence[str] | None = None) -> int:
    """Writes ``runs/zoo/NAME``; an entry of that name is replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="runs/<run>, or a checkpoint")
    parser.add_argument("name", help="what --checkpoint zoo:NAME takes")
    parser.add_argument("--command", help="what trained it, where one command of the run's configuration is not all")
    options, words = parser.parse_known_args(argv)
    if not re.fullmatch(r"\w[\w.+-]*", options.name):
        parser.error(f"NAME must be a folder name, got {options.name!r}")
    checkpoint_file = options.run / "nn" / "best.pth" if options.run.is_dir() else options.run
    folder = zoo.ZOO / options.name
    try:
        checkpoint = load_checkpoint(checkpoint_file)
        command = options.command or training_command(checkpoint.config)
        folder.mkdir(parents=True, exist_ok=True)
        save_policy(folder / POLICY, checkpoint)
        results = driven_results(f"zoo:{options.name}", folder / POLICY, words)
    except ValueError as error:
        print(f"benchmarks.zoo: {error}", file=sys.stderr)
        return 2
    write_results(folder / RESULTS, results)
    (folder / COMMAND).write_text(command + "\n", encoding="utf-8")
    size = (folder / POLICY).stat().st_size
    print(f"zoo:{options.name}: {size:,} bytes\n{command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
