"""Letters to phones: a joint n-gram over pieces of spelling and sound, learnt from CMUdict."""
