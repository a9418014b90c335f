# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the firewall that locks SSH out of the target, and lets SSH in. Private to this collection.

Every firewall that the target starts at boot is loaded by its own program into a throw-away network namespace, and
the kernel is asked (_packet_filter). What is let in already is left alone. Else the smallest addition to the firewall's own
configuration is made, and the kernel is asked again.
"""

from __future__ import annotations

import contextlib
import re
import typing as t

from ..._errors import LifeboatError, TargetError
from .. import _target
from .._command import Result, Runner
from .._facts import _packet_filter, _sshd, _systemd

Ports = t.Dict[int, t.List[int]]
Verdicts = t.Dict[_packet_filter.Knock, str]

COMMENT = "lifeboat.rescue: let SSH in"

_NFT_INTERFACE = re.compile(r"\b(?:[io]ifname|[io]if|devices?|define\s+\w+|elements)\s*(?:[!=]=|=)?\s*"
                            r"(\{[^}]*\}|\"[^\"]*\"|[\w.@-]+)")
_NFT_INCLUDE = re.compile(r"^\s*include\s+\"([^\"]+)\"", re.M)
_MAY_DROP = re.compile(r"\b(policy drop|drop|reject|queue|jump|goto|vmap)\b")


class Blocked(LifeboatError):
    """SSH is locked out and could not be let in."""

    code = "still_locked_out"


class NotLoadable(LifeboatError):
    """A firewall of the target does not load, so nobody can say what it does."""

    code = "firewall_not_loadable"


class Change(t.NamedTuple):
    """One file, before and after; before is None for a file that was not there."""

    path: str
    before: bytes | None
    after: bytes


class _Firewall:
    """One kind of firewall. A subclass says which units start it, how it is loaded, and how SSH is let in."""

    name = ""
    units: tuple[str, ...] = ()
    # Name of the interface that a stranger comes in by.
    stranger = "eth0"
    # Whether load() can take contents that are in no file yet, so that a plan is proved before anything is written.
    rehearses = False

    def __init__(self, run: Runner, root: str):
        self.run = run
        self.root = root
        self.enabled = [unit for unit in self.units if _systemd.enabled(root, unit)]

    def active(self) -> bool:
        """Tell whether the target starts it at boot."""
        return bool(self.enabled)

    def families(self) -> set[int]:
        """The address families that it filters by files of its own."""
        return {4, 6}

    def interfaces(self) -> set[str]:
        """Names of interfaces that its rules speak of (a few words too many do no harm)."""
        return set()

    def load(self, contents: dict[str, bytes]) -> t.Any:
        """Load it in the network namespace of the caller. contents ({path: bytes}) replaces files, if rehearses."""
        raise NotImplementedError

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Change]]:
        """Yield lists of Change, the smallest first, that might let in ports ({family: ports}).

        loaded is what load() returned.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Raise LifeboatError unless its own checker finds its configuration well-formed. In the same network."""

    def inside(self, argv: list[str], stdin: str | None = None) -> Result:
        try:
            return _target.inside(self.run, self.root, argv, stdin=stdin)
        except LifeboatError as exc:
            raise NotLoadable(f"{self.name} of the target does not load: {exc.what}", "Nothing was changed there.",
                              "Mend its configuration in the target, or use mode: disable.", exc.details) from exc


class Nftables(_Firewall):
    """nftables.service, which gives one file to nft."""

    name = "nftables"
    units = ("nftables.service",)
    rehearses = True

    def __init__(self, run: Runner, root: str):
        super().__init__(run, root)
        started = " ".join(_systemd.values(root, "nftables.service", "ExecStart"))
        match = re.search(r"\bnft\b[^;]*?\s-\w*f\s*(/\S+)", started)
        candidates = ["etc/nftables.conf", "etc/sysconfig/nftables.conf"]
        self.path = match.group(1).lstrip("/") if match else next(
            (path for path in candidates if _systemd.exists(root, path)), candidates[0])

    def active(self) -> bool:
        return super().active() and _systemd.exists(self.root, self.path)

    def interfaces(self) -> set[str]:
        text = self._texts(self.path, 0)
        return {name for found in _NFT_INTERFACE.findall(text) for name in re.findall(r"[\w.@-]+", found)}

    def _texts(self, path: str, depth: int) -> str:
        """The file with what it includes, for the names in it only."""
        text = _systemd.text(self.root, path)
        for pattern in _NFT_INCLUDE.findall(text) if depth < 8 else ():
            for found in _systemd.glob(self.root, pattern if pattern.startswith("/") else "etc/" + pattern):
                text += "\n" + self._texts(found, depth + 1)
        return text

    def load(self, contents: dict[str, bytes]) -> t.Any:
        if self.path in contents:
            self.inside(["nft", "-f", "-"], stdin=contents[self.path].decode("utf-8", "surrogateescape"))
        else:
            self.inside(["nft", "-f", "/" + self.path])
        return self.inside(["nft", "list", "ruleset"]).out

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Change]]:
        before = _target.read(self.root, self.path)
        lines = [line for line in before.decode("utf-8", "surrogateescape").splitlines() if COMMENT not in line]
        additions: list[str] = []
        for hooks, port_word in ((("input",), "dport"), (("prerouting", "ingress"), "dport"), (("output",), "sport")):
            added = []
            for chain in _nft_chains(loaded):
                wanted = sorted({port for family in chain.families() for port in ports.get(family, ())})
                if chain.hook in hooks and chain.may_drop and wanted:
                    which = str(wanted[0]) if len(wanted) == 1 else "{ " + ", ".join(map(str, wanted)) + " }"
                    place = f"{chain.family} {chain.table} {chain.name}"
                    added.append(f'insert rule {place} tcp {port_word} {which} accept comment "{COMMENT}"')
            if added:
                additions += added
                text = "\n".join([*lines, *additions]) + "\n"
                yield [Change(self.path, before, text.encode("utf-8", "surrogateescape"))]

    def check(self) -> None:
        self.inside(["nft", "-c", "-f", "/" + self.path])


class _Chain(t.NamedTuple):
    family: str
    table: str
    name: str
    hook: str
    may_drop: bool

    def families(self) -> set[int]:
        return {"ip": {4}, "ip6": {6}, "inet": {4, 6}, "netdev": {4, 6}}.get(self.family, set())


def _nft_chains(ruleset: str) -> list[_Chain]:
    """Base chains of type filter in the text of `nft list ruleset`, in its order."""
    family = table = name = ""
    body: list[str] = []
    found = []
    for line in ruleset.splitlines():
        words = line.split()
        if line.startswith("table ") and len(words) >= 3:
            family, table = words[1], words[2]
        elif line.startswith("\tchain ") and len(words) >= 2:
            name, body = words[1], []
        elif line == "\t}" and name:
            text = "\n".join(re.sub(r'"[^"]*"', '""', each) for each in body)
            match = re.search(r"type filter hook (\w+)", text)
            if match:
                found.append(_Chain(family, table, name, match.group(1), bool(_MAY_DROP.search(text))))
            name = ""
        elif name:
            body.append(line)
    return found


class Iptables(_Firewall):
    """Rules in the format of iptables-save: Debian's netfilter-persistent, RHEL's and Arch's iptables.service."""

    name = "iptables"
    units = ("netfilter-persistent.service", "iptables.service", "ip6tables.service")
    rehearses = True
    _FILES: t.ClassVar = {
        "netfilter-persistent.service": {4: ["etc/iptables/rules.v4"], 6: ["etc/iptables/rules.v6"]},
        "iptables.service": {4: ["etc/sysconfig/iptables", "etc/iptables/iptables.rules"]},
        "ip6tables.service": {6: ["etc/sysconfig/ip6tables", "etc/iptables/ip6tables.rules"]},
    }
    _MODULES = ("ip_tables", "iptable_filter", "iptable_raw", "iptable_mangle", "iptable_nat",
                "ip6_tables", "ip6table_filter", "ip6table_raw", "ip6table_mangle", "ip6table_nat")

    def __init__(self, run: Runner, root: str):
        super().__init__(run, root)
        self.paths = {family: path for unit in self.enabled for family, paths in self._FILES[unit].items()
                      for path in reversed(paths) if _systemd.exists(root, path)}

    def active(self) -> bool:
        return bool(self.paths)

    def families(self) -> set[int]:
        return set(self.paths)

    def interfaces(self) -> set[str]:
        return {name for path in self.paths.values() for name in
                re.findall(r"\s-[io]\s+\"?([\w.@-]+)", _systemd.text(self.root, path))}

    def load(self, contents: dict[str, bytes]) -> t.Any:
        # The target's modprobe knows no modules for the kernel of the rescue system, so that one's own is used.
        self.run(["modprobe", "-q", "-a", *self._MODULES], check=False)
        for family, path in sorted(self.paths.items()):
            data = contents.get(path) or _target.read(self.root, path)
            self.inside(["iptables-restore" if family == 4 else "ip6tables-restore"],
                        stdin=data.decode("utf-8", "surrogateescape"))

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Change]]:
        small = (("filter", "INPUT", "--dport"),)
        large = (*small, ("mangle", "INPUT", "--dport"), ("mangle", "PREROUTING", "--dport"),
                 ("raw", "PREROUTING", "--dport"), ("filter", "OUTPUT", "--sport"))
        for places in (small, large):
            changes = []
            for family, wanted in sorted(ports.items()):
                before = _target.read(self.root, self.paths[family])
                after = _add_to_tables(before, places, wanted)
                if after != before:
                    changes.append(Change(self.paths[family], before, after))
            if changes:
                yield changes

    def check(self) -> None:
        for family, path in sorted(self.paths.items()):
            self.inside(["iptables-restore" if family == 4 else "ip6tables-restore", "--test"],
                        stdin=_target.read(self.root, path).decode("utf-8", "surrogateescape"))


def _add_to_tables(data: bytes, places: t.Iterable[tuple[str, str, str]], ports: list[int]) -> bytes:
    """Rules that let ports in, put first into the chains of places, in a file of iptables-save.

    They stand right before COMMIT as -I, since that is first whatever else the file inserts.
    """
    table = ""
    out = []
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        if COMMENT in line:
            continue
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.strip() == "COMMIT":
            out += [f'-I {chain} -p tcp -m tcp {option} {port} -m comment --comment "{COMMENT}" -j ACCEPT'
                    for place, chain, option in places if place == table for port in sorted(ports, reverse=True)]
        out.append(line)
    return ("\n".join(out) + "\n").encode("utf-8", "surrogateescape")


class Ufw(_Firewall):
    """ufw, by the file that `ufw allow` writes."""

    name = "ufw"
    units = ("ufw.service",)
    _CONF = "etc/ufw/ufw.conf"
    _RULES: t.ClassVar = {4: "etc/ufw/user.rules", 6: "etc/ufw/user6.rules"}

    def active(self) -> bool:
        return super().active() and bool(re.search(r"^\s*ENABLED=[\"']?yes\b", _systemd.text(self.root, self._CONF),
                                                   re.M | re.I))

    def families(self) -> set[int]:
        ipv6 = re.search(r"^\s*IPV6=[\"']?yes\b", _systemd.text(self.root, "etc/default/ufw"), re.M | re.I)
        return {4, 6} if ipv6 else {4}

    def interfaces(self) -> set[str]:
        names = ["user.rules", "user6.rules", "before.rules", "before6.rules"]
        return {name for file in names for name in
                re.findall(r"^-A .*?\s-[io]\s+([\w.@-]+)", _systemd.text(self.root, "etc/ufw/" + file), re.M)}

    def load(self, contents: dict[str, bytes]) -> t.Any:
        started = " ".join(_systemd.values(self.root, "ufw.service", "ExecStart"))
        match = re.search(r"(/\S+/ufw-init)\b", started)
        self.run(["modprobe", "-q", "-a", *Iptables._MODULES], check=False)
        self.inside([match.group(1) if match else "/lib/ufw/ufw-init", "start", "quiet"])

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Change]]:
        comment = COMMENT.encode().hex()
        changes = []
        for family, wanted in sorted(ports.items()):
            before = _target.read(self.root, self._RULES[family])
            text = before.decode("utf-8", "surrogateescape")
            chain, anywhere = ("ufw-user-input", "0.0.0.0/0") if family == 4 else ("ufw6-user-input", "::/0")
            mark = "### RULES ###\n"
            rules = "".join(f"\n### tuple ### allow tcp {port} {anywhere} any {anywhere} in comment={comment}\n"
                            f"-A {chain} -p tcp --dport {port} -j ACCEPT\n" for port in sorted(wanted))
            if mark not in text:
                raise TargetError(f"/{self._RULES[family]} of the target has no line {mark.strip()!r}.",
                                  "Nothing was changed there.", "Repair ufw's rules, or use mode: disable.")
            # First of all rules, so that no rule that the user made before can deny it.
            after = text.replace(mark, mark + rules, 1)
            changes.append(Change(self._RULES[family], before, after.encode("utf-8", "surrogateescape")))
        yield changes

    def off(self) -> Change:
        """The change that switches it off at boot, the way `ufw disable` does."""
        before = _target.read(self.root, self._CONF)
        after = re.sub(rb"^(\s*ENABLED=).*$", rb"\1no", before, flags=re.M)
        return Change(self._CONF, before, after)


_FIREWALLD = """
import sys
from firewall.core.fw import Firewall
firewall = Firewall()
firewall.start()
sys.exit("firewalld ends in the state FAILED" if getattr(firewall, "_state", "") == "FAILED" else 0)
"""


class Firewalld(_Firewall):
    """firewalld, by the zone of the interface; its own code loads the rules, without its D-Bus service."""

    name = "firewalld"
    units = ("firewalld.service",)

    def interfaces(self) -> set[str]:
        return {name for zone in self._zones() for name in
                re.findall(r"<interface\s+name=[\"']([\w.@-]+)", _systemd.text(self.root, zone))}

    def _zones(self) -> list[str]:
        return _systemd.glob(self.root, "etc/firewalld/zones/*.xml")

    def load(self, contents: dict[str, bytes]) -> t.Any:
        first = _systemd.text(self.root, "usr/sbin/firewalld").split("\n", 1)[0]
        python = first[2:].split()[0] if first.startswith("#!/") and "python" in first else "python3"
        self.run(["modprobe", "-q", "-a", *Iptables._MODULES], check=False)
        self.inside([python, "-B", "-c", _FIREWALLD])

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Change]]:
        config = _systemd.text(self.root, "etc/firewalld/firewalld.conf")
        match = re.search(r"^\s*DefaultZone\s*=\s*([\w-]+)", config, re.M)
        zone = f"etc/firewalld/zones/{match.group(1) if match else 'public'}.xml"
        for path in self._zones():
            if re.search(rf"<interface\s+name=[\"']{re.escape(self.stranger)}[\"']", _systemd.text(self.root, path)):
                zone = path
        before = _target.read(self.root, zone) if _systemd.exists(self.root, zone) else None
        source = before if before is not None else _target.read(self.root, "usr/lib/firewalld/zones/"
                                                                + zone.rsplit("/", 1)[1])
        lines = "".join(f'  <port port="{port}" protocol="tcp"/>\n'
                        for port in sorted({port for wanted in ports.values() for port in wanted}))
        text = source.decode("utf-8", "surrogateescape")
        head, end, tail = text.rpartition("</zone>")
        if not end:
            raise TargetError(f"The target's firewalld zone /{zone} has no end.", "Nothing was changed there.")
        after = f"{head}  <!-- {COMMENT} -->\n{lines}{end}{tail}"
        yield [Change(zone, before, after.encode("utf-8", "surrogateescape"))]

    def check(self) -> None:
        if _systemd.exists(self.root, "usr/bin/firewall-offline-cmd"):
            self.inside(["firewall-offline-cmd", "--check-config"])


KINDS = (Nftables, Iptables, Ufw, Firewalld)


def let_ssh_in(run: Runner, root: str, *, check_mode: bool = False) -> dict[str, t.Any]:
    """See that no firewall of the target locks SSH out. Return the module's result (dict).

    Raise Blocked when SSH cannot be let in, NotLoadable, ProbeFailed or TargetError; every file is then as it was.
    """
    _systemd.check_root(root)
    sshd = _sshd.ask(run, root)
    names, addresses = _outside(run)
    result = _start(sshd)
    for kind in KINDS:
        firewall = kind(run, root)
        if firewall.active():
            result["firewalls"].append(_let_in(firewall, sshd, names, addresses, check_mode, result))
    result["changed"] = bool(result["diff"])
    if not result["firewalls"]:
        result["msg"] = "The target starts no firewall at boot that this collection knows."
    else:
        told = [f"{each['name']} {each['after']}" for each in result["firewalls"]]
        result["msg"] = f"SSH (port {', '.join(map(str, result['ports']))}): {'; '.join(told)}."
    return result


def disable(run: Runner, root: str, *, check_mode: bool = False) -> dict[str, t.Any]:
    """See that the target starts no firewall at boot. Return the module's result (dict).

    A link that starts a unit is renamed, not removed: systemd takes no notice of such a name, and renaming it back
    undoes it.
    """
    _systemd.check_root(root)
    result = _start(_sshd.ask(run, root))
    for kind in KINDS:
        firewall = kind(run, root)
        if not firewall.active():
            continue
        files = []
        if isinstance(firewall, Ufw):
            change = firewall.off()
            result["diff"].append(_diff(change))
            backup = None if check_mode else _target.replace(root, change.path, change.after)
            files.append({"path": "/" + change.path, "backup": backup})
        else:
            links = [link for unit in firewall.enabled for link in _systemd.links(root, unit)]
            for link in links:
                result["diff"].append({"before_header": "/" + link, "after_header": "/" + link,
                                       "before": f"-> {_target.link(root, link)}\n", "after": ""})
                backup = None if check_mode else _systemd.set_aside(root, link)
                files.append({"path": "/" + link, "backup": backup})
        if not check_mode and kind(run, root).active():
            raise TargetError(f"{firewall.name} would still be started at boot.",
                              "The links in /etc/systemd/system of the target were set aside.",
                              "Look for links under /usr/lib/systemd/system.")
        result["firewalls"].append({"name": firewall.name, "units": firewall.enabled, "before": "starts at boot",
                                    "after": "no longer starts at boot", "verdicts": {}, "files": files})
    result["changed"] = bool(result["diff"])
    names = [each["name"] for each in result["firewalls"]]
    result["msg"] = (f"The target will not start {' and '.join(names)} at boot." if names
                     else "The target starts no firewall at boot that this collection knows.")
    return result


def _start(sshd: _sshd.Sshd) -> dict[str, t.Any]:
    warnings = []
    if sshd.complaint:
        warnings.append("The target's `sshd -T` fails, so sshd may not start either: "
                        + sshd.complaint)
    if not sshd.endpoints:
        warnings.append("The target's sshd listens on no address that can be reached from outside.")
    return {"changed": False, "ports": sorted({each.port for each in sshd.endpoints}), "ports_source": sshd.source,
            "firewalls": [], "diff": [], "warnings": warnings}


def _let_in(firewall: _Firewall, sshd: _sshd.Sshd, names: list[str], addresses: dict[int, str], check_mode: bool,
            result: dict[str, t.Any]) -> dict[str, t.Any]:
    """Handle one firewall: what was found, what was done. Adds to the diff of result."""
    endpoints = [each for each in sshd.endpoints if each.family in firewall.families()]
    knocks = sorted({_packet_filter.Knock(each.family, each.port) for each in endpoints})
    addresses = {**addresses, **{each.family: each.address for each in endpoints if each.address}}
    spoken = firewall.interfaces()
    interface = next((name for name in names if name in spoken), names[0])
    firewall.stranger = interface

    def verdict(contents: dict[str, bytes] | None = None, check: bool = False) -> tuple[Verdicts, t.Any]:
        def load() -> t.Any:
            if check:
                # Here as well: rules may name interfaces that only this network has.
                firewall.check()
            return firewall.load(contents or {})

        return _packet_filter.ask(firewall.run, knocks, load, interface=interface, others=sorted(_usable(spoken))[:64],
                          addresses=addresses)

    found, loaded = verdict() if knocks else ({}, None)
    report: dict[str, t.Any] = {"name": firewall.name, "units": firewall.enabled, "before": _words(found),
                                "after": _words(found), "verdicts": _verdicts(found), "files": []}
    if _all_in(found):
        return report
    ports: Ports = {}
    for knock, said in found.items():
        if said != _packet_filter.ACCEPTED:
            # All ports of the family: an addition of ours that is there already is written anew.
            ports[knock.family] = sorted({each.port for each in knocks if each.family == knock.family})
    changes: list[Change] = []
    for changes in firewall.plans(ports, loaded):
        if not firewall.rehearses or _all_in(verdict({each.path: each.after for each in changes})[0]):
            break
    else:
        raise Blocked(f"{firewall.name} of the target locks SSH out ({_words(found)}), and no rule that lets it in "
                      "first helps.", "Nothing was changed there.",
                      "Change its rules by hand in the target, or use mode: disable.",
                      details={"verdicts": _verdicts(found)})
    result["diff"] += [_diff(each) for each in changes]
    if check_mode:
        report["after"] = "would let SSH in" if firewall.rehearses else "would be made to let SSH in"
        report["files"] = [{"path": "/" + each.path, "backup": None} for each in changes]
        return report
    report["files"] = _write_proved(firewall, changes, lambda: verdict(check=True)[0])
    report["after"] = "lets SSH in now"
    return report


def _write_proved(firewall: _Firewall, changes: list[Change],
                  verdict: t.Callable[[], Verdicts]) -> list[dict[str, t.Any]]:
    """Write changes; keep them only if verdict, which asks the firewall's own checker too, is good.

    Return the files touched.
    """
    root = firewall.root
    written: list[tuple[Change, str | None]] = []
    try:
        for change in changes:
            if change.before is None:
                _target.create(root, change.path, change.after, mode=0o644)
                written.append((change, None))
            else:
                written.append((change, _target.replace(root, change.path, change.after)))
        found = verdict()
        if not _all_in(found):
            raise Blocked(f"{firewall.name} of the target still locks SSH out ({_words(found)}).",
                          todo="Change its rules by hand in the target, or use mode: disable.",
                          details={"verdicts": _verdicts(found)})
    except BaseException as exc:
        for change, backup in written:
            _put_back(root, change, backup)
        if isinstance(exc, LifeboatError):
            exc.state = "Every file was put back as it was."
        raise
    return [{"path": "/" + change.path, "backup": backup} for change, backup in written]


def _put_back(root: str, change: Change, backup: str | None) -> None:
    if change.before is None:
        _target.remove(root, change.path)
        return
    _target.replace(root, change.path, change.before, backup=False)
    if backup:
        _target.remove(root, backup)


def _all_in(verdicts: Verdicts) -> bool:
    return all(each == _packet_filter.ACCEPTED for each in verdicts.values())


def _verdicts(verdicts: Verdicts) -> dict[str, str]:
    return {f"ipv{knock.family}/{knock.port}": said for knock, said in sorted(verdicts.items())}


def _words(verdicts: Verdicts) -> str:
    bad = [f"{said} over IPv{knock.family} at port {knock.port}" for knock, said in sorted(verdicts.items())
           if said != _packet_filter.ACCEPTED]
    return "lets SSH in" if not bad else "locks SSH out: " + ", ".join(bad)


def _diff(change: Change) -> dict[str, str]:
    return {"before_header": "/" + change.path, "after_header": "/" + change.path,
            "before": (change.before or b"").decode("utf-8", "replace"),
            "after": change.after.decode("utf-8", "replace")}


def _usable(names: t.Iterable[str]) -> set[str]:
    return {name for name in names if 0 < len(name) < 16 and name not in (".", "..", "lo") and "/" not in name}


def _outside(run: Runner) -> tuple[list[str], dict[int, str]]:
    """Names of the interface to the Internet, and the addresses by family, as the running system has them.

    The rescue system runs on the same network card with the same address as the target. The target may call the card
    otherwise, so the names that udev knows for it count as well: `ip link` (altname), `udevadm info` (ID_NET_NAME_*).
    """
    names: list[str] = []
    addresses: dict[int, str] = {}
    for family in (4, 6):
        match = re.search(r"\bdev (\S+)", run(["ip", f"-{family}", "route", "show", "default"], check=False).out)
        if not match:
            continue
        device = match.group(1)
        if device not in names:
            names.append(device)
            names += re.findall(r"altname (\S+)", run(["ip", "link", "show", "dev", device], check=False).out)
            with contextlib.suppress(LifeboatError):
                told = run(["udevadm", "info", "--query=property", f"/sys/class/net/{device}"], check=False).out
                names += re.findall(r"^ID_NET_NAME\w*=(\S+)", told, re.M)
        shown = run(["ip", f"-{family}", "-o", "address", "show", "dev", device, "scope", "global"], check=False).out
        match = re.search(r"\binet6? ([0-9a-fA-F.:]+)", shown)
        if match:
            addresses[family] = match.group(1)
    return [name for name in dict.fromkeys([*names, "eth0"]) if _usable({name})], addresses
