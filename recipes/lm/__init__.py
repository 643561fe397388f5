"""The English language model: text, vocabulary, Kneser-Ney estimate, pruning to a size."""
