"""An answer printed while it comes. Layer: CLI; used by `chat` and `responses follow`."""

from __future__ import annotations

from typing import Any

from moorage.cli import printing


class Answer:
    """Prints one answer while it comes."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._open = False
        self._reasoning = False
        self.response_id: str | None = None
        self.session: str | None = None
        self.status = ""
        self.asked: list[dict[str, Any]] = []
        """Calls of tools that wait for a person (`mcp_approval_request` items)."""

    def show(self, event: dict[str, Any]) -> None:
        """One event of the stream."""
        if self._as_json:
            printing.document(event)
        response = event.get("response")
        if isinstance(response, dict):
            self.response_id = response.get("id") or self.response_id
            self.session = response.get("agent_session_id") or self.session
            self.status = str(response.get("status"))
        if not self._as_json:
            self._print(event)
        item = event.get("item")
        if event.get("type") == "response.output_item.done" and isinstance(item, dict):
            self.asked += [item] if item.get("type") == "mcp_approval_request" else []

    def end(self) -> None:
        """The line after the answer."""
        if self._open:
            printing.out("")
            self._open = False

    def _print(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "response.output_text.delta" | "response.refusal.delta":
                self._write(str(event.get("delta", "")))
            case "response.output_item.done":
                self._item(event.get("item") or {})
            case "response.failed" | "response.incomplete":
                self.end()
                response = event.get("response") or {}
                why = (response.get("error") or {}).get("message") or (response.get("incomplete_details") or {}).get(
                    "reason"
                )
                printing.note(f"({self.status}{': ' + printing.clean(why) if why else ''})")

    def _write(self, text: str) -> None:
        printing.out(printing.clean(text), end="")
        self._open = True

    def _item(self, item: dict[str, Any]) -> None:
        if item.get("type") == "message":
            self.end()
        elif item.get("type") == "mcp_approval_request":
            self.end()
            called = f"{item.get('server_label')}: {item.get('name')} {item.get('arguments', '')}"
            printing.note(f"  ? waits for approval ({printing.clean(item.get('id'))}): {printing.clean(called)}")
        elif item.get("type") == "oauth_consent_request":
            self.end()
            link = printing.clean(item.get("consent_link"))
            printing.note(f"  ? waits for your consent ({printing.clean(item.get('server_label'))}): {link}")
        elif item.get("type") == "function_call":
            self.end()
            printing.note(printing.clean(f"  · {item.get('name')} {item.get('arguments', '')}")[:200])
