"""The words of the command line: roles, what keys do in them, paths, and words of other projects."""
