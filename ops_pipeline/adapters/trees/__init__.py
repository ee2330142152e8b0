"""Trees of files, on this machine or inside a courier container: the same modules run in both places.

Everything here but `session` uses the standard library, `core.backup.file_entry` and `core.backup.patterns` only.
"""
