"""What a user's browser shows: one plain page, all of it escaped. Layer: pure."""

from __future__ import annotations

from html import escape

from moorage_gateway.consents.flow import Shown
from moorage_gateway.consents.shapes import Subject

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><main><h1>{title}</h1>{body}</main></body></html>
"""


def question(link: str, shown: Shown) -> bytes:
    """What is asked, of whom, and the way on."""
    who, asks = shown.subject, "".join(f"<li>{escape(scope)}</li>" for scope in shown.scopes)
    body = f"""
<p>Agents of <b>{escape(who.tenant)}</b> want to act for user <b>{escape(who.user)}</b> at <b>{escape(who.upstream)}</b>
(toolbox {escape(who.toolbox)}). You sign in and decide at <b>{escape(shown.server)}</b>.</p>
{f"<p>They ask for:</p><ul>{asks}</ul>" if asks else ""}
<p>Go on only if you are <b>{escape(who.user)}</b> and asked an agent for this yourself. If somebody sent you this link, close the page:
they would act with your account.</p>
<form method="post" action="?link={escape(link)}"><input type="hidden" name="check" value="{escape(shown.check)}">
<button>I am {escape(who.user)}: go on</button></form>"""
    return _page("Allow an agent to act for you", body)


def done(subject: Subject) -> bytes:
    """It is kept."""
    body = f"""
<p>Agents of <b>{escape(subject.tenant)}</b> may act for user <b>{escape(subject.user)}</b> at <b>{escape(subject.upstream)}</b>
(toolbox {escape(subject.toolbox)}) from now on. Go back to the agent, and ask it again.</p>
<p>To end it: <code>moorage toolboxes consent revoke {escape(subject.toolbox)} {escape(subject.upstream)}</code></p>"""
    return _page("Allowed", body)


def refusal(text: str) -> bytes:
    """Why not."""
    return _page("Not allowed", f"<p>{escape(text)}</p>")


def _page(title: str, body: str) -> bytes:
    return _PAGE.format(title=escape(title), body=body).encode()
