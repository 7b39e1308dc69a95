"""Verbs on a spool: each a documented sequence of file operations (docs/format.md has them numbered)."""
