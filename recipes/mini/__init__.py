"""The recipe that made the bundled model: 16 hours of speech, two cores."""
