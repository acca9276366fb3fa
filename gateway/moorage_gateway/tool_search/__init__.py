"""Finds tools by what they do: BM25 and a static token table, fused by reciprocal rank. No I/O but the table's file, read once.

`Table.load()` once a process, `Index.of(tools, table)` once a toolbox version, `index.search(text, 5)` a question; `Answers` keeps what was
found for a (toolbox version, session). Figures: docs/tool-search.md.
"""

from moorage_gateway.tool_search.answers import Answers
from moorage_gateway.tool_search.index import Index
from moorage_gateway.tool_search.table import Table
from moorage_gateway.tool_search.texts import Tool

__all__ = ["Answers", "Index", "Table", "Tool"]
