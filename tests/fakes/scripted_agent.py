"""An agent process that does what its request says: `python scripted_agent.py`, listening on 127.0.0.1:$PORT.

POST anything with {"script": [step, …]} answers a stream of server-sent events; the steps:
    ["event", {…}]  ["raw", text]  ["big", bytes]  ["wait", path]  ["print", text]  ["exit", code]  ["kill"]  ["child", path]
    ["flood", count, bytes]  ["echo", name]  ["http", status, text]  ["json", {…}]  ["close"]
`wait` holds until a file exists; `child` leaves a process that writes its pid to a file; `echo` sends the whole request
back in an event. GET /readiness answers 200 unless $NOT_READY; $DIE_AT_START ends the process at once with that status.
ANY /mirror streams the request's body back as it comes; GET /drip?n sends n chunks, one for each file `$GATE.i`.

Limits: one request a connection, bodies in memory, no pipelining, Content-Length or chunked requests only.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys


async def until(path: str) -> None:
    while not os.path.exists(path):
        await asyncio.sleep(0.005)


class Exchange:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.streaming = reader, writer, False

    async def serve(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = [(k.strip().lower(), v.strip()) for k, v in (line.split(":", 1) for line in lines)]
        path = self.target.partition("?")[0]
        if path == "/readiness":
            self.answer(503 if os.environ.get("NOT_READY") else 200, b"{}")
        elif path == "/mirror":
            await self.mirror()
        elif path == "/drip":
            await self.drip(int(self.target.partition("?")[2]))
        elif path == "/headers":
            self.answer(200, json.dumps({"headers": self.headers, "target": self.target}).encode())
        elif path == "/refuse":  # as a shim would
            self.answer(503, b'{"error":"not_ready"}')
        elif path == "/hold":
            await self.hold()
        elif path == "/exit":
            os._exit(9)
        else:
            body = b"".join([piece async for piece in self.body()])
            await self.script(json.loads(body))
        await self.writer.drain()
        self.writer.close()

    async def body(self):
        found = dict(self.headers)
        if found.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        else:
            left = int(found.get("content-length", 0))
            while left:
                piece = await self.reader.read(min(left, 65536))
                left -= len(piece)
                yield piece

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        head = (
            f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.writer.write(head.encode() + body)

    async def mirror(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-kept: 1\r\nconnection: close\r\n\r\n")
        async for piece in self.body():
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self.writer.drain()
        self.writer.write(b"0\r\n\r\n")

    async def drip(self, count: int) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n")
        for number in range(count):
            await until(f"{os.environ['GATE']}.{number}")
            piece = b"drop %d" % number
            self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.writer.write(b"0\r\n\r\n")

    async def hold(self) -> None:
        """Answers nothing; leaves `$GATE.held` when asked and `$GATE.left` when the other end hangs up."""
        open(f"{os.environ['GATE']}.held", "w").close()
        await self.reader.read()
        open(f"{os.environ['GATE']}.left", "w").close()

    async def script(self, body: dict) -> None:
        for step in body.get("script", []):
            await getattr(self, f"step_{step[0]}")(body, *step[1:])
        if self.streaming and not self.writer.is_closing():
            self.writer.write(b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        if not self.streaming:
            self.streaming = True
            self.writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def step_event(self, body: dict, event: dict) -> None:
        await self.send(f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode())

    async def step_raw(self, body: dict, text: str) -> None:
        await self.send(text.encode())

    async def step_big(self, body: dict, size: int) -> None:
        await self.step_event(body, {"type": "big", "text": "x" * size})

    async def step_flood(self, body: dict, count: int, size: int) -> None:
        for number in range(count):
            await self.step_event(body, {"type": "flood", "n": number, "text": "x" * size})

    async def step_echo(self, body: dict, name: str) -> None:
        seen = {"headers": self.headers, "body": body, "pid": os.getpid(), "environ": sorted(os.environ)}
        await self.step_event(body, {"type": name, **seen})

    async def step_wait(self, body: dict, path: str) -> None:
        await until(path)

    async def step_print(self, body: dict, text: str) -> None:
        print(text, flush=True)

    async def step_exit(self, body: dict, code: int) -> None:
        os._exit(code)

    async def step_kill(self, body: dict) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def step_child(self, body: dict, path: str) -> None:
        code = (
            f"import os,signal; open({path!r}+'.new','w').write(str(os.getpid())); os.rename({path!r}+'.new', {path!r})"
        )
        code += "; signal.pause()"
        subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
        await until(path)

    async def step_http(self, body: dict, status: int, text: str) -> None:
        self.answer(status, text.encode(), "text/plain")

    async def step_json(self, body: dict, value: dict) -> None:
        self.answer(200, json.dumps(value).encode())

    async def step_close(self, body: dict) -> None:
        self.writer.close()


async def main() -> None:
    if os.environ.get("DIE_AT_START"):
        print("cannot start", flush=True)
        os._exit(int(os.environ["DIE_AT_START"]))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Exchange(reader, writer).serve()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]), limit=1 << 20)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
