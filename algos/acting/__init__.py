"""Policies: observation in, action out."""
