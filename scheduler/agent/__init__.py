"""The node's side: says that it lives, fetches work, runs it, and reports how it ended."""
