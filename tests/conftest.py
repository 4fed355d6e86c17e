"""Settings of the whole test run: one thread per numerical library, no display, nothing written into the tree."""

import os

# Before numpy and torch are imported: tests run beside worker processes, and small problems lose time to threads.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
