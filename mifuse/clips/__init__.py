"""Recordings: manifests, decoding, corpora, and what is computed of clips once and kept on disk."""
