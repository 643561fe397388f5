"""Larger public corpora than the bundled model saw: LibriSpeech, from a local copy or downloaded."""
