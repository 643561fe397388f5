"""The recording of the demo: a voice whose making can be repeated."""
