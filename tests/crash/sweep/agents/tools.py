"""The tools of an agent whose model says what is called: own functions. Those for 3 and 5 are the toolbox's: `post_N`, or `book`."""

import asyncio

import work

from moorage import read_only


async def post(key: str, note: str) -> str:
    """Posts a key."""
    return await asyncio.to_thread(work.post, key, note)


async def post_1(key: str, note: str) -> str:
    """Posts a key."""
    return await post(key, note)


async def post_2(key: str, note: str) -> str:
    """Posts a key."""
    return await post(key, note)


async def post_4(key: str, note: str) -> str:
    """Posts a key."""
    return await post(key, note)


@read_only
async def is_there(key: str) -> str:
    """Whether a key was posted."""
    return await asyncio.to_thread(work.look, key)


ALL = [post, post_1, post_2, post_4]


def prompt(text):
    """Instructions for who was asked that: `RUN MODE`."""
    return " ".join(("Post what you are told to.", *work.now(text.split()[1])))
