"""A stand-in for TrackMania, for development and tests: the same window, keys and telemetry, with a simulated car.

    python -m tasks.stand_in --track short --size 958x488

It is a separate program on purpose: a driver needs a real window, a real keyboard and a real socket to drive it.
``game.py`` is its loop. Only tests import it.
"""
