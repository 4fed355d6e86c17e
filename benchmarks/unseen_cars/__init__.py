"""How a policy drives cars that it never saw: ``python -m benchmarks.unseen_cars``."""
