"""The HTTP gateway: serves the API document over HTTP, as a client of the exchanges."""
