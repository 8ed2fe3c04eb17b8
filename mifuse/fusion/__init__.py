"""The labels: two teachers weighed, and refined by the archive itself."""

from mifuse.fusion.weighting import WEIGHTINGS, Fused, entropy, fuse, mutual_information

__all__ = ["WEIGHTINGS", "Fused", "entropy", "fuse", "mutual_information"]
