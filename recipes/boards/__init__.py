"""Boards: what the network asks of them, and a trial on an emulated one."""
