"""The operations console: server-made pages, for operators, under /console of the gateway."""
