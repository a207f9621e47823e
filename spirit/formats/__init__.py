"""Readers and writers of formats that others defined."""
