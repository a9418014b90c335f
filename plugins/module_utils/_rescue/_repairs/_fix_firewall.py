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
from .._changes import Change, File, LinkSetAside
from .._command import Result, Runner
from .._facts import _packet_filter, _sshd, _systemd
from ._base import Finding, Repair

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


class Rules(t.NamedTuple):
    """One file of a firewall (name: its path in the target), before and after; before is None for a file that is not there."""

    name: str
    before: bytes | None
    after: bytes

    def change(self, root: str) -> File:
        """What makes it so."""
        return File(root, self.name, f"SSH let in by /{self.name}", self.before, self.after, mode=0o644)


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

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Rules]]:
        """Yield lists of Rules, the smallest first, that might let in ports ({family: ports}).

        loaded is what load() returned.
        """
        raise NotImplementedError

    def off(self) -> list[Change]:
        """What keeps the target from starting it at boot."""
        return [LinkSetAside(self.root, link, f"{self.name} no longer starts at boot ({link})")
                for unit in self.enabled for link in _systemd.links(self.root, unit)]

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

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Rules]]:
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
                yield [Rules(self.path, before, text.encode("utf-8", "surrogateescape"))]

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

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Rules]]:
        small = (("filter", "INPUT", "--dport"),)
        large = (*small, ("mangle", "INPUT", "--dport"), ("mangle", "PREROUTING", "--dport"),
                 ("raw", "PREROUTING", "--dport"), ("filter", "OUTPUT", "--sport"))
        for places in (small, large):
            changes = []
            for family, wanted in sorted(ports.items()):
                before = _target.read(self.root, self.paths[family])
                after = _add_to_tables(before, places, wanted)
                if after != before:
                    changes.append(Rules(self.paths[family], before, after))
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

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Rules]]:
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
            changes.append(Rules(self._RULES[family], before, after.encode("utf-8", "surrogateescape")))
        yield changes

    def off(self) -> list[Change]:
        """The way `ufw disable` does it."""
        before = _target.read(self.root, self._CONF)
        after = re.sub(rb"^(\s*ENABLED=).*$", rb"\1no", before, flags=re.M)
        return [File(self.root, self._CONF, "ufw no longer starts at boot", before, after)]


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

    def plans(self, ports: Ports, loaded: t.Any) -> t.Iterator[list[Rules]]:
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
        yield [Rules(zone, before, after.encode("utf-8", "surrogateescape"))]

    def check(self) -> None:
        if _systemd.exists(self.root, "usr/bin/firewall-offline-cmd"):
            self.inside(["firewall-offline-cmd", "--check-config"])


KINDS = (Nftables, Iptables, Ufw, Firewalld)


class Options(t.NamedTuple):
    """See the options of the module. mode: `allow` or `disable`."""

    mode: str = "allow"


class _Question:
    """What is asked of the kernel about one firewall."""

    def __init__(self, firewall: _Firewall, sshd: _sshd.Sshd, names: t.Sequence[str], addresses: t.Mapping[int, str]):
        self.firewall = firewall
        endpoints = [each for each in sshd.endpoints if each.family in firewall.families()]
        self.knocks = sorted({_packet_filter.Knock(each.family, each.port) for each in endpoints})
        self._addresses = {**addresses, **{each.family: each.address for each in endpoints if each.address}}
        self._spoken = firewall.interfaces()
        firewall.stranger = next((name for name in names if name in self._spoken), names[0])
        self.found: Verdicts = {}
        self.loaded: t.Any = None

    def ask(self, contents: t.Mapping[str, bytes] | None = None, check: bool = False) -> tuple[Verdicts, t.Any]:
        """What the kernel does with SSH, and what loading the firewall told. contents: in the place of files. check: see check()."""
        def load() -> t.Any:
            if check:
                # Here as well: rules may name interfaces that only this network has.
                self.firewall.check()
            return self.firewall.load(dict(contents or {}))

        if not self.knocks:
            return {}, None
        return _packet_filter.ask(self.firewall.run, self.knocks, load, interface=self.firewall.stranger,
                                  others=sorted(_usable(self._spoken))[:64], addresses=self._addresses)

    def changes(self) -> list[File]:
        """The smallest addition that lets SSH in. Raises Blocked."""
        # All ports of a family: an addition of ours that is there already is written anew.
        shut = {knock.family for knock, said in self.found.items() if said != _packet_filter.ACCEPTED}
        ports = {family: sorted({each.port for each in self.knocks if each.family == family}) for family in shut}
        for changes in self.firewall.plans(ports, self.loaded):
            if not self.firewall.rehearses or _all_in(self.ask({each.name: each.after for each in changes})[0]):
                return [each.change(self.firewall.root) for each in changes]
        raise Blocked(f"{self.firewall.name} of the target locks SSH out ({_words(self.found)}), and adding an accept rule first does "
                      "not help.", "Nothing was changed there.", "Change its rules by hand in the target, or use mode: disable.",
                      details={"verdicts": _verdicts(self.found)})


class FixFirewall(Repair):
    """See the module."""

    name = "fix_firewall"
    runs_target = True

    def __init__(self, run: Runner, root: str, options: Options):
        super().__init__(run, root)
        self.options = options
        # What the kernel has just said of each firewall, by its name, so that it is not asked the same twice.
        self._proved: dict[str, Verdicts] = {}

    def check(self) -> list[Finding]:
        _systemd.check_root(self.root)
        self.sshd = _sshd.ask(self.run, self.root)
        self.active = [firewall for firewall in (kind(self.run, self.root) for kind in KINDS) if firewall.active()]
        if self.options.mode == "disable":
            return [Finding("firewall.starts", "note", f"{firewall.name} starts at boot.",
                            {"firewall": firewall.name, "units": firewall.enabled}) for firewall in self.active]
        names, addresses = _outside(self.run)
        self.questions = [_Question(firewall, self.sshd, names, addresses) for firewall in self.active]
        return [*self._check_firewalls(), *self._check_sshd()]

    def _check_firewalls(self) -> t.Iterator[Finding]:
        for question in self.questions:
            name = question.firewall.name
            if name in self._proved:
                question.found = self._proved.pop(name)
            else:
                question.found, question.loaded = question.ask()
            if not _all_in(question.found):
                yield Finding("firewall.blocks_ssh", "no_login", f"{name} {_words(question.found)}.", {
                    "firewall": name, "units": question.firewall.enabled, "verdicts": _verdicts(question.found),
                    "ports": sorted({each.port for each in self.sshd.endpoints}), "ports_source": self.sshd.source})

    def _check_sshd(self) -> t.Iterator[Finding]:
        if self.sshd.complaint:
            yield Finding("sshd.fails", "no_login", "The target's `sshd -T` fails, so sshd may not start either: " + self.sshd.complaint,
                          fixable=False)
        if not self.sshd.endpoints:
            yield Finding("sshd.no_address", "no_login", "The target's sshd listens on no address that can be reached from outside.",
                          fixable=False)

    def plan(self, findings: t.Sequence[Finding]) -> list[Change]:
        if self.options.mode == "disable":
            return [change for firewall in self.active for change in firewall.off()]
        return [change for question in self.questions if not _all_in(question.found) for change in question.changes()]

    def prove(self) -> str:
        if self.options.mode == "disable":
            # check() follows, and looks at what starts.
            return "No unit of a firewall is started at boot any more."
        for question in self.questions:
            if _all_in(question.found):
                continue
            found, _loaded = question.ask(check=True)
            if not _all_in(found):
                raise Blocked(f"{question.firewall.name} of the target still locks SSH out ({_words(found)}).",
                              todo="Change its rules by hand in the target, or use mode: disable.", details={"verdicts": _verdicts(found)})
            self._proved[question.firewall.name] = found
        return "Loaded in a network of its own, the firewall lets a connection to SSH in, says the kernel; its own checker finds no fault."

    def summary(self, changes: t.Sequence[Change]) -> str:
        if changes or not self.active:
            return super().summary(changes) if changes else "The target starts no firewall at boot that this collection knows."
        names = [firewall.name for firewall in self.active]
        return f"{' and '.join(names)} of the target {'lets' if len(names) == 1 else 'let'} SSH in."


def _all_in(verdicts: Verdicts) -> bool:
    return all(each == _packet_filter.ACCEPTED for each in verdicts.values())


def _verdicts(verdicts: Verdicts) -> dict[str, str]:
    return {f"ipv{knock.family}/{knock.port}": said for knock, said in sorted(verdicts.items())}


def _words(verdicts: Verdicts) -> str:
    bad = [f"{said} over IPv{knock.family} at port {knock.port}" for knock, said in sorted(verdicts.items())
           if said != _packet_filter.ACCEPTED]
    return "lets SSH in" if not bad else "locks SSH out: " + ", ".join(bad)


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
