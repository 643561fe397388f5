"""A bundle's int8 graph -> a recogniser in plain C: python -m export.c BUNDLE FOLDER

What computes is written by hand and the same for every model (streamasr.c, network.c, ...); what the model is, its
weights and sizes, is written as tables (model.c, sizes.h) by tables.py from what graph.py reads.
"""
