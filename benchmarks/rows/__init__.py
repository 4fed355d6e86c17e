"""The rows of the table that the project measures itself by: ``python -m benchmarks.rows``."""
