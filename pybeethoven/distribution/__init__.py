"""SANS-IO: the distribution protocol, from the handshake to control messages.

No module here touches a socket, a clock or randomness: what it needs of those is an argument.

Source: https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html
"""
