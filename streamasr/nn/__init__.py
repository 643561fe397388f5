"""The one definition of the network, in torch (extra `train`)."""
