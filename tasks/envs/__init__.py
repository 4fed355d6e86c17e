"""Environments: the interface of a task, rtgym's timing in virtual and real time, tasks other than TrackMania."""
