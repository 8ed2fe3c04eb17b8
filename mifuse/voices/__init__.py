"""Statistics of voices: prosody, spectrum, voices that sound alike, and which clips to label."""
