"""Run folders: what a run leaves, its metrics, and its report."""
