"""Plain ASGI layers, one a file; `app.py` puts them in order and says why. Layer: gateway, rim."""
