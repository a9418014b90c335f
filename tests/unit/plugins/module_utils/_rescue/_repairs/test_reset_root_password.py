# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import os
import signal
import time

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, Busy, TargetError
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue import _command
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._facts import _libcrypt
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._repairs import _base, _reset_root_password
from ansible_collections.lifeboat.rescue.plugins.module_utils._rescue._target import NotThere

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMW4I49gXVW8BspmMJ0ITVCRCihNkC9tkYDKSvF9NfRa"
TODAY = int(time.time() // 86400)


class Run(_command.Runner):
    """The real runner, but nothing is run inside a target, which may not even hold a shell."""

    def __call__(self, argv, **options):
        if argv[0] in ("unshare", "nsenter"):
            return _command.Result(127, "", "not in this test")
        return super().__call__(argv, **options)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    me, group = os.getuid(), os.getgid()
    (tmp_path / "etc/passwd").write_text(
        f"root:x:0:0:root:/root:/bin/sh\nme:x:{me}:{group}::/home/me:/bin/sh\nnobody:x:65534:65534::/:/sbin/nologin\n"
        "hashed:$1$abc:9:9::/:/bin/sh\nnoshadow:x:10:10::/:/bin/sh\nshort:x:11:11::/:/bin/sh\n")
    (tmp_path / "etc/shadow").write_text(
        "root:*:19000:0:99999:7:::\nme:!$6$old:0:0:99999:7::1:\n# odd\nroot:second:1::::::\nshort:x:1\nlast:*:1::::::")
    (tmp_path / "etc/shadow").chmod(0o640)
    (tmp_path / "home/me").mkdir(parents=True)
    return tmp_path


def fix(root, check_mode=False, **options):
    repair = _reset_root_password.ResetRootPassword(Run(), str(root), _reset_root_password.Options(**options))
    return _base.run(repair, check_mode)


def done(result):
    return [change["what"] for change in result["changes"]]


def codes(result):
    return [finding["code"] for finding in result["findings"]]


def lines(root):
    return (root / "etc/shadow").read_text().split("\n")


def test_one_line_changes_and_no_other_byte(root):
    before = lines(root)
    result = fix(root, user="root", password="secret")
    after = lines(root)
    assert done(result) == ["password set (sha512)"] and result["needed"] is True and codes(result)[0] == "password.other"
    assert after[1:] == before[1:]
    name, hashed, day, rest = after[0].split(":", 3)
    assert (name, day, rest) == ("root", str(TODAY), "0:99999:7:::")
    assert _libcrypt.matches(Run(), "/", "secret", hashed)
    assert (root / result["changes"][0]["backup"].lstrip("/")).read_text().split("\n") == before
    assert hashed not in str(result) and "secret" not in str(result)
    again = fix(root, user="root", password="secret")
    assert (again["changed"], again["needed"], again["changes"]) == (False, False, [])


def test_check_mode_writes_nothing(root):
    before = sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert done(fix(root, check_mode=True, user="me", password="secret", authorized_keys=[KEY])) == [
        "password set (sha512); password unlocked", "/home/me/.ssh made", "1 SSH key(s) added"]
    assert sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def test_a_missing_line_is_made(root):
    fix(root, user="noshadow", password="secret")
    line = next(line for line in lines(root) if line.startswith("noshadow:"))
    assert _libcrypt.matches(Run(), "/", "secret", line.split(":")[1]) and line.endswith(f":{TODAY}:0:99999:7:::")


@pytest.mark.parametrize(("user", "error"), [("hashed", TargetError), ("short", TargetError),
                                             ("gone", _reset_root_password.UserNotFound), ("", _reset_root_password.UserNotFound)])
def test_users_that_cannot_be_helped(root, user, error):
    before = lines(root)
    with pytest.raises(error):
        fix(root, user=user, password="secret")
    assert lines(root) == before


def test_unlocking_nothing_is_refused(root):
    (root / "etc/shadow").write_text("root:!:1::::::\n")
    with pytest.raises(BadInput, match="without a password"):
        fix(root, user="root", locked=False)


def test_lock_and_unlock_keep_the_hash(root):
    hashed = _libcrypt.make(Run(), "/", "secret", "sha512")
    fix(root, user="root", password_hash=hashed)
    assert done(fix(root, user="root", locked=True)) == ["password locked"]
    assert lines(root)[0].startswith(f"root:!{hashed}:")
    assert done(fix(root, user="root", locked=False)) == ["password unlocked"]
    assert lines(root)[0].startswith(f"root:{hashed}:")


def test_expiry_is_told_and_lifted_only_when_asked(root):
    warnings = fix(root, user="me", authorized_keys=[KEY])["warnings"]
    assert any("has expired" in each for each in warnings) and any("must be changed" in each for each in warnings)
    result = fix(root, user="me", clear_expiry=True)
    assert done(result) == ["password no longer has to be changed at login; account no longer expires"]
    assert lines(root)[1] == f"me:!$6$old:{TODAY}:0:99999:7:::"


GOOD = "root:$6$a$b:19000:0:99999:7:::\nme:$6$c$d:19000:0:99999:7:::\n"


@pytest.mark.parametrize(("now", "code"), [(None, "missing"), (b"", "damaged"), (b"\0" * 900, "damaged"), (b"junk\n", "damaged")],
                         ids=["missing", "empty", "zeros", "junk"])
@pytest.mark.parametrize("options", [{"password": "secret"}, {"authorized_keys": [KEY]}], ids=["password", "key"])
def test_shadow_is_restored_from_its_copy(root, now, code, options):
    """Without it not even a key lets in. Who is only in passwd is not lost silently."""
    (root / "etc/shadow").unlink()
    if now is not None:
        (root / "etc/shadow").write_bytes(now)
    (root / "etc/shadow-").write_text(GOOD)
    (root / "etc/shadow-").chmod(0o640)
    result = fix(root, user="me", **options)
    assert codes(result)[0] == f"shadow.{code}" and done(result)[0].startswith("shadow restored from /etc/shadow-")
    assert lines(root)[0] == GOOD.partition("\n")[0] and (root / "etc/shadow").stat().st_mode & 0o777 == (0o640 if now is None else 0o644)
    assert {line.split(":")[0] for line in lines(root) if line} == {"root", "me", "nobody", "hashed", "noshadow", "short"}
    [lost] = [finding for finding in result["findings"] if finding["code"] == "shadow.lost"]
    assert lost["evidence"] == {"users": ["nobody", "hashed", "noshadow", "short"], "restored_from": "/etc/shadow-"}
    assert lost["sentence"] in result["warnings"]
    mine = next(line for line in lines(root) if line.startswith("me:"))
    assert ("password" not in options) == (mine == GOOD.split("\n")[1])
    assert fix(root, user="me", **options)["needed"] is False


@pytest.mark.parametrize("copy", [None, b"", b"\0\0"])
def test_shadow_is_rebuilt_where_its_copy_is_no_good_either(root, copy):
    (root / "etc/shadow").unlink()
    (root / "etc/gshadow").touch(0o640)
    if copy is not None:
        (root / "etc/shadow-").write_bytes(copy)
        (root / "etc/shadow-").chmod(0o640)
    result = fix(root, user="root", password="secret")
    assert result["findings"][0]["evidence"] == {"restored_from": "/etc/passwd"}
    names = {line.split(":")[0]: line.split(":")[1] for line in lines(root) if line}
    assert set(names) == {"root", "me", "nobody", "hashed", "noshadow", "short"} and names["me"] == "*"
    assert _libcrypt.matches(Run(), "/", "secret", names["root"])
    assert (root / "etc/shadow").stat().st_mode & 0o777 == 0o640


def test_line_ends_of_windows(root):
    """What is set is on a line that no reader takes, if they stay."""
    text = (root / "etc/shadow").read_text()
    (root / "etc/shadow").write_bytes(text.replace("\n", "\r\n").encode())
    result = fix(root, user="root", password="secret")
    assert codes(result)[0] == "shadow.crlf" and b"\r" not in (root / "etc/shadow").read_bytes()
    assert lines(root)[1:] == text.split("\n")[1:]


def test_a_link_that_leads_nowhere_is_not_made_a_file(root):
    (root / "etc/shadow").rename(root / "etc/shadow-")
    (root / "etc/shadow").symlink_to("/nowhere/shadow")
    with pytest.raises(NotThere):
        fix(root, user="root", password="secret")
    assert (root / "etc/shadow").is_symlink()


def test_an_account_without_a_line(root):
    result = fix(root, user="noshadow", clear_expiry=True)
    assert codes(result)[0] == "shadow.no_entry" and "noshadow:*::0:99999:7:::" in lines(root)


def test_the_lock_is_respected(root):
    before = lines(root)
    lock = root / "etc/.pwd.lock"
    lock.touch()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Such a lock belongs to a process, so that it takes another one to hold it.
        held = lock.open("w")
        fcntl.lockf(held, fcntl.LOCK_EX)
        os.write(writer, b"held")
        signal.pause()
    try:
        assert os.read(reader, 4) == b"held"
        with pytest.raises(Busy):
            fix(root, user="root", password="secret")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert lines(root) == before
    assert fix(root, user="root", password="secret")["changed"]


def test_broken_proof_puts_shadow_back(root, monkeypatch):
    before = lines(root)
    complaints = iter([[], ["invalid password file entry"]])
    monkeypatch.setattr(_reset_root_password, "_pwck", lambda run, root: next(complaints))
    with pytest.raises(TargetError, match=r"pwck finds fault.*put back"):
        fix(root, user="root", password="secret")
    assert lines(root) == before
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["passwd", "shadow"]


def test_keys(root):
    other = KEY[:-4] + "AAAA"
    options = 'from="192.0.2.0/24,!192.0.2.9",command="echo ssh-ed25519 AAAA" '
    assert done(fix(root, user="me", authorized_keys=[KEY + " me@here"])) == ["/home/me/.ssh made", "1 SSH key(s) added"]
    file = root / "home/me/.ssh/authorized_keys"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    # The same key with another comment is the same key.
    assert not fix(root, user="me", authorized_keys=[KEY + " elsewhere"])["changed"]
    file.write_text(f"# mine\n{KEY} me@here")
    fix(root, user="me", authorized_keys=[f"{options}{other}\n\n# a comment"])
    assert file.read_text() == f"# mine\n{KEY} me@here\n{options}{other}\n"
    result = fix(root, user="me", authorized_keys=[other], exclusive=True)
    assert done(result) == ["1 SSH key(s) added, 3 line(s) removed"]
    assert file.read_text() == f"{other}\n"


@pytest.mark.parametrize("key", ["nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", KEY[:-8], KEY.replace("ed25519", "rsa"),
                                 "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_lines_that_are_no_keys(root, key):
    with pytest.raises(BadInput, match="Line 2"):
        fix(root, user="me", authorized_keys=[KEY, key])
    assert list((root / "home/me").iterdir()) == []


def test_nothing_is_written_through_a_link_out_of_the_tree(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (root / "home/me/.ssh").symlink_to(outside)
    with pytest.raises(TargetError):
        fix(root, user="me", authorized_keys=[KEY])
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("before", [
    'command="echo \'Please login as the user \\"debian\\".\';sleep 10;exit 142" ', 'from="192.0.2.7" ', 'expiry-time="20200101" ',
    "restrict "])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_key_with_options_is_another_one(root, before, exclusive):
    """sshd takes the options of the first line that the key is in."""
    (root / "home/me/.ssh").mkdir(mode=0o700)
    file = root / "home/me/.ssh/authorized_keys"
    file.write_text(f"# mine\n{before}{KEY} me@here\n")
    result = fix(root, user="me", authorized_keys=[KEY], exclusive=exclusive)
    assert result["changed"] and "keys.missing" in codes(result)
    assert file.read_text() == (f"{KEY}\n" if exclusive else f"# mine\n{KEY}\n{before}{KEY} me@here\n")
    assert fix(root, user="me", authorized_keys=[KEY], exclusive=exclusive)["needed"] is False
    # Who wants it with these options wants them to count.
    fix(root, user="me", authorized_keys=[before + KEY])
    assert next(line for line in file.read_text().splitlines() if KEY in line).startswith(before)


@pytest.mark.parametrize("exclusive", [False, True])
def test_of_a_key_that_is_wanted_twice_the_first_counts(root, exclusive):
    fix(root, user="me", authorized_keys=["restrict " + KEY, KEY], exclusive=exclusive)
    assert (root / "home/me/.ssh/authorized_keys").read_text() == f"restrict {KEY}\n"


def test_an_odd_date_of_expiry_is_cleared(root):
    text = (root / "etc/shadow").read_text()
    (root / "etc/shadow").write_text(text.replace("me:!$6$old:0:0:99999:7::1:", "me:!$6$old:19000:0:99999:7::never:"))
    assert done(fix(root, user="me", clear_expiry=True)) == ["account no longer expires"]
    assert lines(root)[1] == "me:!$6$old:19000:0:99999:7:::"


def test_bytes_that_are_no_utf8_stay(root):
    (root / "home/me/.ssh").mkdir(mode=0o700)
    file = root / "home/me/.ssh/authorized_keys"
    file.write_bytes(b"# M\xfcller\n")
    assert fix(root, user="me", authorized_keys=[KEY])["changed"]
    assert file.read_bytes() == b"# M\xfcller\n" + KEY.encode() + b"\n"


def test_nothing_is_written_where_a_part_cannot_be(root):
    """The password and a key are wanted, and there is no home for the key."""
    (root / "home/me").rmdir()
    before = lines(root)
    with pytest.raises(TargetError, match=r"does not exist in the target\. Nothing was changed"):
        fix(root, user="me", password="secret", authorized_keys=[KEY])
    assert lines(root) == before


@pytest.mark.parametrize("failing", ["apply", "prove"])
def test_what_was_done_is_taken_back(root, monkeypatch, failing):
    """Byte for byte, and said, whatever was done before it failed."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    there = sorted(root.rglob("*"))

    def fail(*_args):
        raise TargetError("On purpose.")

    if failing == "apply":
        make = _reset_root_password.File.apply
        monkeypatch.setattr(_reset_root_password.File, "apply", lambda self: fail() if "keys" in self.path else make(self))
    else:
        monkeypatch.setattr(_reset_root_password.ResetRootPassword, "prove", fail)
    with pytest.raises(TargetError, match=r"On purpose\. Everything was put back as it was\."):
        fix(root, user="me", password="secret", authorized_keys=[KEY])
    assert sorted(root.rglob("*")) == there
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("options", [{}, {"password": "a", "locked": True}, {"password_hash": "$6$a$b", "locked": True}])
def test_options_that_cannot_be(root, options):
    with pytest.raises(BadInput):
        fix(root, user="me", **options)


def test_complaints_hold_no_hash():
    def run(argv, **options):
        return _command.Result(2, "delete line 'me:$6$salt$hash:1:0:99999:7:::'? No\npwck: no changes\n", "")

    assert _reset_root_password._pwck(run, "/") == ["delete line 'me'? No", "pwck: no changes"]
