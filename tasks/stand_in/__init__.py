"""A game to develop and test against where TrackMania cannot run: same window, keys and telemetry, simulated car.

    python -m tasks.stand_in --track short --size 958x488

It is a program of its own, on purpose: what drives it goes through a real window, a real keyboard and a real socket.
``game.py`` is its loop. Only tests import anything of it.
"""
