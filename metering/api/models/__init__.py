"""What goes over the wire, both ways: these models check requests and describe every body in /openapi.json."""
