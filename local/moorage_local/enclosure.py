"""The command that starts a zygote: what of the host it sees, its environment, bubblewrap's options. Layer: local provider, below `zygote`.

Pure but for `observe` and `python_folders`, which look at the host's folders. What this machine can do at all is `isolation`'s to know.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moorage_local import cgroups, staging
from moorage_local.isolation import Isolation, IsolationError, Mode

INSIDE_UID = 1000
CODE = "/app"
LAUNCHER = "/run/moorage/launcher"
KEPT = "/run/moorage/kept"
CA_FILE = "/run/moorage/ca.pem"
VOLUMES = "/volumes"
WORKSPACE = "/workspace"
HOME = "/home/agent"
SCRATCH = str(64 * 1024 * 1024)
COVERED = ("/tmp", HOME, WORKSPACE, VOLUMES, "/dev", "/proc", CODE)  # paths inside the sandbox
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_CONFIGURATION = (
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
)


@dataclass(frozen=True)
class Bind:
    """A host path and where a sandbox sees it."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link in the sandbox's root."""

    text: str
    target: str


@dataclass(frozen=True)
class ZygoteSpec:
    """What a zygote of one revision runs. `uid` is its host user where the provider is root; `private` may not be shown to it.

    `program`: the entry is run by exec for each agent process (foreign contracts), not pre-imported.
    """

    name: str
    python: Path
    code: Path
    entry: str
    volumes: Path
    launcher: Path
    program: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    ca_file: Path | None = None
    mounts: tuple[Bind, ...] = ()
    private: tuple[Path, ...] = ()
    limits: cgroups.Limits | None = None
    ready_seconds: float = 60.0


@dataclass(frozen=True)
class System:
    """The parts of the host's root that a sandbox shares, read-only."""

    binds: tuple[Bind, ...]
    links: tuple[Link, ...]


def observe(root: Path = Path("/")) -> System:
    """Looks at the host's root: a merged /usr has links where an older one has folders."""
    binds, links = [], []
    for path in SYSTEM:
        place = root / path.lstrip("/")
        if place.is_symlink():
            links.append(Link(os.readlink(place), path))
        elif place.is_dir():
            binds.append(Bind(str(place), path))
    binds += [
        Bind(str(root / path.lstrip("/")), path) for path in SYSTEM_CONFIGURATION if (root / path.lstrip("/")).exists()
    ]
    return System(tuple(binds), tuple(links))


def python_folders(python: Path) -> list[str]:
    """The installation folders that an interpreter needs: its environment, each hop of its links, and the base installation.

    Both the name it is called by and the place that name leads to, without what the shared /usr already has.
    """
    folders: list[Path] = []
    hop = python.absolute()
    for _ in range(40):
        folders.append(hop.parent.parent)
        folders.append(hop.parent.resolve().parent)
        if not hop.is_symlink():
            break
        hop = Path(os.path.normpath(hop.parent / os.readlink(hop)))
    configuration = python.absolute().parent.parent / "pyvenv.cfg"
    if configuration.is_file():
        for line in configuration.read_text().splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home" and value.strip():
                folders += [Path(value.strip()).parent, Path(value.strip()).resolve().parent]
    shared = tuple(Path(path) for path in SYSTEM)
    return list(dict.fromkeys(str(f) for f in folders if not any(f == s or s in f.parents for s in shared)))


def binds_of(spec: ZygoteSpec, folders: Iterable[str], system: System) -> list[Bind]:
    """Everything of the host that the zygote sees, outer folders first. Raises IsolationError for what must stay unseen."""
    folders = list(folders)
    shown = shown_to(spec.launcher, folders, system)
    pythons = [Bind(folder, folder) for folder in sorted(folders, key=lambda folder: folder.count("/"))]
    shown += [Bind(bind.source, f"{KEPT}/{number}") for number, bind in enumerate(covered(pythons))]
    shown += [Bind(str(spec.launcher), LAUNCHER), Bind(str(spec.code), CODE)]
    if spec.ca_file is not None:
        shown.append(Bind(str(spec.ca_file), CA_FILE))
    shown += spec.mounts
    for bind in shown:
        for secret in spec.private:
            if secret == Path(bind.source) or Path(bind.source) in secret.parents:
                raise IsolationError(
                    f"{spec.name}: {bind.source} cannot be shown to the agent, {secret} lies in it; move one of them"
                )
    return [*shown, Bind(str(spec.volumes), VOLUMES, writable=True)]


def shown_to(launcher: Path, folders: Iterable[str], system: System) -> list[Bind]:
    """What of the host every sandbox and program sees: the system's, and the folders of an interpreter, outer ones first."""
    etc = launcher / "etc"
    names = ("passwd", "group", "hosts", "nsswitch.conf")
    pythons = [Bind(folder, folder) for folder in sorted(folders, key=lambda folder: folder.count("/"))]
    return [*system.binds, *(Bind(str(etc / name), f"/etc/{name}") for name in names), *pythons]


def covered(binds: Iterable[Bind]) -> list[Bind]:
    """Those whose place a fresh mount of each sandbox covers, so that init must show them again."""
    return [
        bind for bind in binds if any(bind.target == path or bind.target.startswith(f"{path}/") for path in COVERED)
    ]


def bubblewrap_arguments(
    binds: Iterable[tuple[str, Bind]], links: Iterable[Link], env: Mapping[str, str] | str, chdir: str = "/"
) -> list[str]:
    """The bubblewrap options of a zygote; `binds` are (where the source is to be found, bind). Pure.

    `env` a text: of a program that has somebody above it who reaps, and whose environment is read from the descriptor of that number, as
    options, since secrets in it may stand in no command line.
    """
    arguments = [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *("--new-session", "--die-with-parent", "--hostname", "sandbox"),
        *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID)),
    ]
    if isinstance(env, str):
        arguments += ["--args", env]
    else:
        arguments += ["--as-pid-1", "--clearenv"]
        arguments += [word for name, value in env.items() for word in ("--setenv", name, value)]
    for path in ("/tmp", HOME, WORKSPACE):  # the zygote's own; each sandbox mounts over them
        arguments += ["--size", SCRATCH, "--tmpfs", path]
    arguments += ["--dev", "/dev", "--proc", "/proc"]
    for source, bind in binds:
        arguments += ["--bind" if bind.writable else "--ro-bind", source, bind.target]
    for link in links:
        arguments += ["--symlink", link.text, link.target]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", chdir]


def environment(spec: ZygoteSpec, mode: Mode) -> dict[str, str]:
    """The environment the entry is imported in; the host's own is not passed on. Pure."""
    env = {
        "PATH": f"{spec.python.absolute().parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        # These libraries start a thread for each core at import, and a thread does not survive the fork.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }
    if mode == "isolated":
        env |= {"HOME": HOME, "USER": "agent", "TMPDIR": "/tmp"}
    if spec.ca_file is not None:
        file = CA_FILE if mode == "isolated" else str(spec.ca_file)
        env |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), file)
    return env | dict(spec.env)


def command(
    spec: ZygoteSpec, isolation: Isolation, *, control: int, system: System, folders: list[str], groups: Iterable[Path]
) -> list[str]:
    """The whole command line of a zygote, for any mode. Pure; `folders` are those of `python_folders(spec.python)`."""
    if isolation.mode == "plain":
        request = _launch(spec, control, launcher=str(spec.launcher), code=str(spec.code)) + ["--plain"]
        return _staged(request, groups, uid=None, sources=[], tools={})
    binds = binds_of(spec, folders, system)
    kept = covered(Bind(folder, folder) for folder in sorted(folders, key=lambda folder: folder.count("/")))
    inner = _launch(spec, control, launcher=LAUNCHER, code=CODE) + [
        part for bind in kept for part in ("--keep", bind.target)
    ]
    return enclosed(isolation, binds, system.links, environment(spec, "isolated"), inner, spec.uid, groups)


def enclosed(
    isolation: Isolation,
    binds: list[Bind],
    links: Iterable[Link],
    env: Mapping[str, str] | str,
    inner: list[str],
    uid: int | None,
    groups: Iterable[Path],
    chdir: str = "/",
) -> list[str]:
    """`inner` inside bubblewrap, by way of the staging script; `env` and `chdir` as for `bubblewrap_arguments`.

    Raises IsolationError without bubblewrap, or as root without a uid.
    """
    program = isolation.bubblewrap
    if program is None:
        raise IsolationError("isolated mode without bubblewrap: detect() has not found one")
    if isolation.as_root and not uid:
        raise IsolationError("the provider runs as root: give every agent a host uid of its own")
    if not isolation.as_root:
        located = [(bind.source, bind) for bind in binds]
        argv = [str(program), *bubblewrap_arguments(located, links, env, chdir), "--", *inner]
        return _staged(argv, groups, uid=None, sources=[], tools={})
    located = [(f"{staging.STAGE}/{number}", bind) for number, bind in enumerate(binds)]
    program, tools = _staged_program(program)
    argv = [str(program), *bubblewrap_arguments(located, links, env, chdir), "--", *inner]
    return _staged(argv, groups, uid=uid, sources=[bind.source for bind in binds], tools=tools)


def _staged_program(program: Path) -> tuple[Path, dict[str, str]]:
    """The wheel's bubblewrap finds its library beside its package, so both are staged side by side."""
    package = program.parent.parent
    libraries = package.parent / f"{package.name}.libs"
    if not libraries.is_dir():
        return program, {}
    tools = {package.name: str(package), libraries.name: str(libraries)}
    return Path(staging.STAGE) / package.name / program.parent.name / program.name, tools


def _staged(
    argv: list[str], groups: Iterable[Path], *, uid: int | None, sources: list[str], tools: dict[str, str]
) -> list[str]:
    request = {"groups": [str(path) for path in groups], "uid": uid, "sources": sources, "tools": tools, "argv": argv}
    return [sys.executable, "-I", staging.__file__, json.dumps(request)]


def _launch(spec: ZygoteSpec, control: int, *, launcher: str, code: str) -> list[str]:
    command = [str(spec.python.absolute()), "-I", launcher, "zygote", "--control", str(control), "--code", code]
    return [*command, "--entry", spec.entry, *(["--exec"] if spec.program else [])]
