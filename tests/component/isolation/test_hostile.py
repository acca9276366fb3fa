"""What a hostile agent can reach from inside an isolated sandbox: nothing of the host, of other sessions, or of the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fakes.ward import Ward, below_tmp
from moorage_local.isolation import Isolation

pytestmark = [pytest.mark.component, pytest.mark.isolation]

CANARY = "canary-4f1d9a"

SEARCH = f"""
import os, sys
found = []
known = ("/usr", "/sys", sys.prefix, sys.base_prefix)
for place, folders, files in os.walk("/", followlinks=False):
    if place in known or place.startswith("/proc/"):
        folders[:] = []
        continue
    for name in [*folders, *files]:
        if "{CANARY}" in name:
            found.append(os.path.join(place, name))
    for name in files:
        path = os.path.join(place, name)
        try:
            if os.path.isfile(path) and os.path.getsize(path) < 65536 and b"{CANARY}" in open(path, "rb").read():
                found.append(path)
        except OSError:
            pass
result = found
"""


async def test_the_isolated_mode_is_there_where_it_is_required(isolated: Isolation) -> None:
    assert isolated.mode == "isolated"


async def test_no_file_of_another_session_or_of_the_host_is_seen(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_TEST_SECRET", CANARY)
    (ward.folder / "secret").write_text(CANARY)
    zygote = await ward.zygote()
    neighbour = await ward.guest(zygote, f"{CANARY}-neighbour")
    await neighbour.tell(f"open('/workspace/mine', 'w').write('{CANARY}'); open('/tmp/mine', 'w').write('{CANARY}')")
    await neighbour.tell(f"open('/dev/shm/mine', 'w').write('{CANARY}')")
    (neighbour.volume / "binding.json").write_text(CANARY)
    guest = await ward.guest(zygote)
    (guest.volume / "binding.json").write_text(CANARY)
    assert await guest.tell(SEARCH) == []
    assert await guest.tell("import os; result = os.listdir('/volumes')") == []
    assert await neighbour.tell(SEARCH) != [], "the search finds what is there"


async def test_no_secret_of_the_host_is_in_any_environment(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORAGE_TEST_SECRET", CANARY)
    guest = await ward.guest(await ward.zygote(), MOORAGE_SESSION="given")
    seen = await guest.tell(
        """
        import glob, os
        result = {"own": dict(os.environ), "all": ""}
        for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
            try:
                result["all"] += open(path, "rb").read().decode(errors="replace")
            except OSError:
                pass
        """
    )
    assert CANARY not in str(seen)
    assert "MOORAGE_TEST_SECRET" not in seen["own"]
    own = seen["own"]
    assert (own["HOME"], own["TMPDIR"], own["MOORAGE_SESSION"]) == ("/home/agent", "/tmp", "given")


async def test_only_its_own_processes_are_seen(ward: Ward) -> None:
    zygote = await ward.zygote()
    await ward.guest(zygote)
    guest = await ward.guest(zygote)
    seen = await guest.tell("import os; result = [int(n) for n in os.listdir('/proc') if n.isdigit()]")
    assert seen == [1, guest.pid]


async def test_there_is_no_network_but_its_own_loopback(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    with socket.create_server(("127.0.0.1", 0)) as host_server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0moorage-{os.getpid()}")
        abstract.listen(1)
        seen = await guest.tell(
            f"""
            import errno, os, socket
            def attempt(family, address):
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                    sock.settimeout(2)
                    sock.connect(address)
                except OSError as fault:
                    return errno.errorcode.get(fault.errno, str(fault))
                return "connected"
            result = {{
                "interfaces": [name for _, name in socket.if_nameindex()],
                "host loopback": attempt(socket.AF_INET, ("127.0.0.1", {host_server.getsockname()[1]})),
                "internet": attempt(socket.AF_INET, ("192.0.2.1", 80)),
                "metadata": attempt(socket.AF_INET, ("169.254.169.254", 80)),
                "ipv6": attempt(socket.AF_INET6, ("2001:db8::1", 80)),
                "abstract socket": attempt(socket.AF_UNIX, "\\0moorage-{os.getpid()}"),
                "hypervisor": attempt(40, (2, 1)),
                "resolver": os.path.exists("/etc/resolv.conf"),
            }}
            """
        )
    assert seen == {
        "interfaces": ["lo"],
        "host loopback": "ECONNREFUSED",
        "internet": "ENETUNREACH",
        "metadata": "ENETUNREACH",
        "ipv6": seen["ipv6"],
        "abstract socket": "ECONNREFUSED",
        "hypervisor": "EAFNOSUPPORT",
        "resolver": False,
    }
    assert seen["ipv6"] != "connected"


async def test_nothing_can_be_written_but_workspace_home_and_memory(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    written = await guest.tell(
        """
        import os
        written = set()
        for place, folders, _ in os.walk("/"):
            if place == "/proc":
                folders[:] = []
                continue
            if place.count("/") > 4:
                folders[:] = []
            path = os.path.join(place, "left-by-agent")
            try:
                open(path, "w").close()
                os.unlink(path)
                written.add(place)
            except OSError:
                pass
        result = sorted(written)
        """
    )
    assert sorted(set(written) - below_tmp()) == ["/dev/shm", "/home/agent", "/tmp", "/workspace"]
    assert list((guest.volume.parent.parent / "code").iterdir()) == [guest.volume.parent.parent / "code" / "host.py"]


async def test_no_kernel_setting_can_be_opened_for_writing(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    opened = await guest.tell(
        """
        import os
        result = []
        for root in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"):
            paths = [root] if os.path.isfile(root) else [os.path.join(p, f) for p, _, fs in os.walk(root) for f in fs]
            for path in paths:
                try:
                    os.close(os.open(path, os.O_WRONLY))
                    result.append(path)
                except OSError:
                    pass
        """
    )
    assert opened == []


async def test_no_privilege_is_left_and_none_can_be_gained(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    seen = await guest.tell(
        """
        import ctypes, errno, os
        libc = ctypes.CDLL(None, use_errno=True)
        def call(name, *arguments):
            ctypes.set_errno(0)
            return "done" if getattr(libc, name)(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
        def reads(path):
            try:
                open(path, "rb").read(1)
            except OSError as fault:
                return errno.errorcode[fault.errno]
            return "done"
        def setuid():
            try:
                os.setuid(0)
            except OSError as fault:
                return errno.errorcode[fault.errno]
            return "done"
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        result = {
            "capabilities": {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
            "no new privileges": status["NoNewPrivs"].strip(),
            "seccomp": status["Seccomp"].strip(),
            "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
            "umount": call("umount2", b"/volumes", 2),
            "user namespace": call("unshare", 0x10000000),
            "mount namespace": call("unshare", 0x20000),
            "setns": call("setns", 0, 0),
            "chroot": call("chroot", b"/tmp"),
            "trace init": call("ptrace", 16, 1, 0, 0),
            "setuid": setuid(),
            "memory of init": reads("/proc/1/mem"),
            "environment of init": reads("/proc/1/environ"),
            "kernel memory": reads("/proc/kcore"),
            "host name": call("sethostname", b"other", 5),
            "killing init": call("kill", 1, 9),
        }
        result["capabilities"] = sorted(result["capabilities"])
        if os.uname().machine == "x86_64":
            result["clone a user namespace"] = call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0)
            result["key ring"] = call("syscall", 250, 0, 0, 0, 0)
            result["bpf"] = call("syscall", 321, 0, 0, 0)
        """
    )
    assert seen.pop("capabilities") == ["0" * 16]
    assert (seen.pop("no new privileges"), seen.pop("seccomp")) == ("1", "2")
    assert seen.pop("kernel memory") in ("done", "EACCES", "ENOENT"), "an empty file stands there, or none"
    assert seen.pop("killing init") == "done", "the kernel takes the signal and drops it"
    assert {
        name: answer for name, answer in seen.items() if answer not in ("EPERM", "EACCES", "EINVAL", "ENOSPC")
    } == {}
    assert guest.sandbox.alive


async def test_the_open_descriptors_are_its_own(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    seen = await guest.tell(
        "import os; result = {n: os.readlink(f'/proc/self/fd/{n}') for n in ('0', '1', '2')};"
        "result['rest'] = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')"
        " if int(n) > 2 and os.path.lexists(f'/proc/self/fd/{n}')]"
    )
    rest = seen.pop("rest")
    assert seen["0"] == "/dev/null" and seen["1"] == seen["2"] and seen["1"].startswith("pipe:")
    assert len([name for name in rest if name.startswith("socket:")]) == len(rest) <= 2, "its listener and this request"


async def test_on_the_host_it_is_nobody_of_note(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    for pid in guest.sandbox.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        uids = set(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:])
        assert uids == {str(ward.uid if ward.uid is not None else os.getuid())}
        assert "0" not in uids


async def test_the_code_folder_and_the_interpreter_stay_as_they_are(ward: Ward) -> None:
    guest = await ward.guest(await ward.zygote())
    result = await guest.tell(
        """
        import os, sys
        result = []
        for path in ("/app/host.py", sys.executable, os.__file__, "/run/moorage/launcher/init.py", "/etc/passwd"):
            try:
                os.close(os.open(path, os.O_WRONLY))
                result.append(path)
            except OSError:
                pass
        """
    )
    assert result == []
