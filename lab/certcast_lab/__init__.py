"""A local cloud for certcast: what is real runs as itself, the two cloud APIs are emulated."""
