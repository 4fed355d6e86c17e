"""The data that moves between processes, such as observations and samples, and the contract of the link."""
