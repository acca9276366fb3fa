"""The gateway's routes: the data path in raw ASGI, the control API in FastAPI. Layer: gateway, rim."""
