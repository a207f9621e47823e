"""The names of other releases, on top of ours."""
