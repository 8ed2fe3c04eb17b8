"""The demo, its synthetic speech and its stand-in for a LALM."""
