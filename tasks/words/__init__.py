"""The arguments of the command line: roles, the metadata of keys, paths, and arguments of other projects."""
