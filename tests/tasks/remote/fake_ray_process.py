"""Speaks as ``ray_process`` does, without Ray; what it plays is in the namespace: BEHAVIOUR:FOLDER."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ENDED = {"reason": "by signal 9 on node-1", "said": [], "tail": "", "lived_s": 0.1, "is_own": True}


def say(answer: dict[str, Any]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answers until standard input closes."""
    config = json.loads(sys.stdin.readline())
    behaviour, _, folder = config["namespace"].partition(":")
    starts = Path(folder) / "starts"
    with starts.open("a") as file:
        file.write(json.dumps({"config": config, "env": dict(os.environ)}) + "\n")
    is_first = len(starts.read_text().splitlines()) == 1
    if behaviour == "refuses" or (behaviour == "leaves" and not is_first):
        say({"refused": "the head is gone"})
        return
    if behaviour == "hangs":
        time.sleep(600)
    say({"host": "10.1.2.3"})
    for line in sys.stdin:
        request = json.loads(line)
        run = request["run"]
        incarnation = json.loads(request["configuration"])["incarnation"]
        say({"run": run, "waits": "a node with {CPU: 1} free"})
        say({"run": run, "placed": {"host": "10.1.2.4", "pid": 40 + incarnation, "has_same_code": False}})
        say({"run": run, "line": f"incarnation {incarnation} of {request['worker']}"})
        if behaviour == "dies":
            say({"run": run, "ended": ENDED})
        elif behaviour == "cannot":
            say({"run": run, "ended": {**ENDED, "reason": "before it ran: no such module", "tail": "no such module"}})
        elif behaviour == "reports":
            report = json.dumps({"kind": "error", "message": "the wheel fell off", "traceback": "in step"})
            say({"run": run, "ended": {**ENDED, "said": [report], "reason": "with exit status 1"}})
        elif behaviour == "loses" and incarnation <= 7:
            say({"run": run, "ended": {**ENDED, "reason": "with its node 10.1.2.4", "is_own": False}})
        elif behaviour in ("crashes", "leaves") and is_first:
            sys.stderr.write("Failed to connect to GCS within 60 seconds")
            os._exit(1)
    say({"host": "it has ended"})


if __name__ == "__main__":
    main()
