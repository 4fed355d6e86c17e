"""The video of a driven episode: recorded cheaply while it is driven, drawn afterwards."""
