"""The daemon: in real processes over real sockets, and its parts by themselves."""
