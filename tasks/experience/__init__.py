"""What moves between processes: observations, samples, and the contract of the link between them."""
