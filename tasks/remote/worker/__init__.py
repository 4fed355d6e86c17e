"""The worker's end: acting and delivering, on the learner's machine or on another one."""
