"""Acting: one policy in one environment, whether it collects experience or is evaluated."""
