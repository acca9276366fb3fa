"""OpenAPI documents as tools: a document in, definitions and a builder of requests out. Pure; where requests go is said elsewhere
(`tools/http_api.py`).

Api        what `read` makes of a document: operations, and what it refused of it, each with the reason
Request    what `build` makes of an operation and a model's arguments: method, path, query, headers, body
told       what an API answered, as a tool's result
"""

from moorage_gateway.openapi.answers import told
from moorage_gateway.openapi.document import Api, DocumentError, read
from moorage_gateway.openapi.operations import Operation, Place
from moorage_gateway.openapi.requests import ArgumentError, Request, build

__all__ = ["Api", "ArgumentError", "DocumentError", "Operation", "Place", "Request", "build", "read", "told"]
