"""Environments: what a task implements, rtgym's timing in virtual and real time, tasks beside TrackMania."""
