"""Parts of ``benchmarks.link``: messages, both ends of each way to send them, and simulated workers."""
