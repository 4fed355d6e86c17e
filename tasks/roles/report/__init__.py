"""--report: a page about a run, or about two beside each other."""
