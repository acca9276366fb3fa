"""What can be reached from where this runs; standard library only. A target is one of

HOST:PORT        a TCP connection is made
udp:HOST:PORT    a name server there answers a question
name:NAME        the name resolves
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 1.0
QUESTION = b"\x4d\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"


def reached(target):
    how, _, rest = target.partition(":")
    try:
        if how == "name":
            return bool(socket.getaddrinfo(rest, None))
        host, _, port = (rest if how == "udp" else target).rpartition(":")
        if how == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(SECONDS)
                asking.sendto(QUESTION, (host, int(port)))
                return asking.recv(512).startswith(QUESTION[:2])
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
        return True
    except OSError:
        return False


def all_of(targets):
    """Target → whether it was reached, all at once."""
    with ThreadPoolExecutor(len(targets)) as pool:
        return dict(zip(targets, pool.map(reached, targets), strict=True))


if __name__ == "__main__":
    print(json.dumps(all_of(sys.argv[1:])))
