"""The zoo: small trained checkpoints of the repository, ``runs/zoo/<name>``, played as ``--checkpoint zoo:<name>``.

An entry has ``policy.pth`` (what acts, and nothing to learn on), ``results.json`` (ten seeded episodes of that file)
and ``command.txt`` (how it was trained). ``python -m benchmarks.zoo`` adds one. Standard library only.
"""

from __future__ import annotations

from pathlib import Path

ZOO = Path(__file__).resolve().parents[2] / "runs" / "zoo"
POLICY, RESULTS, COMMAND = "policy.pth", "results.json", "command.txt"


def entries() -> list[str]:
    """The names of all entries."""
    return sorted(file.parent.name for file in ZOO.glob(f"*/{POLICY}"))


def entry_file(name: str) -> Path:
    """The checkpoint of an entry.

    Raises:
        ValueError: There is none of that name; says which there are.
    """
    known = entries()
    if name not in known:
        raise ValueError(f"checkpoint zoo:{name} is not in the zoo, which has {', '.join(known) or 'nothing yet'}")
    return ZOO / name / POLICY
