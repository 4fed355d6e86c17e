"""Parts of ``benchmarks.link``: what is sent, the two ends of each way to send it, and simulated workers."""
