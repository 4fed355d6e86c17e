"""The one way to refuse a value."""


def require(condition: bool, key: str, got: object, expected: str) -> None:
    """Raises a ValueError that names the key, what was expected and what was given, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key} must be {expected}, got {got!r}")
