"""ASYNCIO: sockets in, events out. Knows connections and nodes, nothing of processes."""
