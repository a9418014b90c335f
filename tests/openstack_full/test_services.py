# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only real services prove: keystone's log-ins, glance's images, cinder's volumes. By the provider's class.

What the provider does in each state of a server is in its unit tests, which run with these services as well.
"""

from __future__ import annotations

import uuid

import pytest

from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers import _calls
from ansible_collections.lifeboat.rescue.plugins.module_utils._control._providers._openstack._provider import DISK, NOTE, OpenStack
from ansible_collections.lifeboat.rescue.plugins.module_utils._errors import BadInput, NotAllowed, NotFound
from ansible_collections.lifeboat.rescue.plugins.module_utils._wait import Backoff
from lifeboat_lab.waiting import until

pytest_plugins = "lifeboat_lab.nova.fixtures"


@pytest.fixture(autouse=True)
def alone(monkeypatch, nobody):
    """No credentials of the person who runs the tests."""
    monkeypatch.setattr(_calls, "Backoff", lambda first, longest, factor: Backoff(0.1, 0.5))


@pytest.fixture
def log_in(nova):
    """Providers; each is closed after the test."""
    made = []

    def make(user="member", **more):
        cloud = nova.cloud(user)
        made.append(OpenStack({"openstack_auth": cloud["auth"], "openstack_region_name": cloud["region_name"], **more}))
        return made[-1]

    yield make
    for one in made:
        one._client.connection.close()


@pytest.fixture
def admin(connect):
    return connect("admin")


def end(provider, task, seconds=60.0):
    """The task when it is no longer running."""
    def ended():
        now = provider.read_task("web1", task.id)
        return now if now.state != "running" else None

    return until(ended, seconds, "The task did not end.", every=0.1) if task.state == "running" else task


def rescue(provider, wanted="best"):
    return end(provider, provider.boot_into("web1", provider.choose("web1", wanted), provider.reboot_baseline("web1"), password="ours"))


def boot_disk(provider):
    return end(provider, provider.boot_into("web1", DISK, provider.reboot_baseline("web1")))


# keystone


def test_the_roles_are_in_the_token(log_in):
    assert log_in("member")._roles() == {"member", "reader"}
    assert log_in("reader")._roles() == {"reader"}
    assert {"admin", "manager", "member", "reader"} <= log_in("admin")._roles()


def test_the_catalog_leads_to_the_services(connect):
    access = connect("member").session.auth.get_access(connect("member").session)
    assert {service["type"] for service in access.service_catalog.catalog} == {
        "identity", "image", "placement", "compute", "block-storage", "network"}


def test_each_interface_of_the_catalog_will_do(log_in, make_server):
    make_server()
    for interface in ("public", "internal", "admin"):
        assert log_in(openstack_interface=interface).list_servers() == ["web1"]
    with pytest.raises(BadInput, match="no such service"):
        log_in(openstack_region_name="elsewhere").list_servers()


@pytest.mark.parametrize(("name", "value"), [("password", "wrong"), ("username", "nobody"), ("project_name", "elsewhere"),
                                             ("user_domain_id", "nowhere")])
def test_a_log_in_that_keystone_refuses_is_told(nova, make_server, log_in, name, value):
    make_server()
    auth = {**nova.cloud("member")["auth"], name: value}
    with pytest.raises(NotAllowed, match="not valid") as told:
        log_in(openstack_auth=auth).read_server("web1")
    assert nova.password not in str(told.value)


def test_a_user_who_was_switched_off_is_told(nova, make_server, log_in, admin):
    make_server()
    provider = log_in("other")
    user = admin.identity.find_user("other")
    admin.identity.update_user(user, is_enabled=False)
    try:
        with pytest.raises(NotAllowed, match="not valid"):
            provider.read_server("web1")
    finally:
        admin.identity.update_user(user, is_enabled=True)


def test_an_application_credential_is_enough(nova, make_server, log_in, connect):
    make_server()
    connection = connect("member")
    # Who has it cannot make others, nor change the password.
    credential = connection.identity.create_application_credential(
        connection.current_user_id, f"rescue {uuid.uuid4()}", roles=[{"name": "member"}])
    auth = {"auth_url": nova.cloud("member")["auth"]["auth_url"], "application_credential_id": credential.id,
            "application_credential_secret": credential.secret}
    provider = log_in(openstack_auth=auth, openstack_auth_type="v3applicationcredential")
    provider.check_rights("web1")
    assert rescue(provider).state == "done"
    assert boot_disk(provider).state == "done"
    connection.identity.delete_application_credential(connection.current_user_id, credential)
    with pytest.raises(NotAllowed, match="not valid"):
        log_in(openstack_auth=auth, openstack_auth_type="v3applicationcredential").read_server("web1")


def test_a_token_that_was_revoked_is_replaced(make_server, log_in, admin):
    make_server()
    provider = log_in("member")
    provider.read_server("web1")
    session = provider._client.connection.session
    old = session.get_token()
    admin.session.delete(f"{admin.session.auth.auth_url}/auth/tokens", headers={"X-Subject-Token": old})
    # Services remember a token for minutes, keystone does not.
    session.auth.invalidate()
    assert provider.read_server("web1").name == "web1"
    assert session.get_token() != old


# glance


def test_what_glance_has_not_ready_or_no_more_is_not_offered(nova, make_server, log_in):
    make_server()
    provider = log_in()
    for status in ("queued", "deactivated"):
        nova.put_image(f"it is {status}", status=status, tags=[status])
        with pytest.raises(BadInput, match=f"No image has the id, the name or the tag '{status}'"):
            provider.choose("web1", status)


def test_another_projects_image_is_seen_when_it_was_shared_and_accepted(nova, make_server, log_in, connect):
    make_server()
    image = nova.put_image("theirs", visibility="shared", owner="elsewhere")
    with pytest.raises(BadInput, match="No image"):
        log_in().choose("web1", "theirs")
    project = connect("member").current_project_id
    connect("other").image.add_member(image, member_id=project)
    with pytest.raises(BadInput, match="No image"):
        log_in().choose("web1", "theirs")
    connect("member").image.update_member(project, image, status="accepted")
    provider = log_in()
    assert provider.choose("web1", "theirs").id == image
    assert rescue(provider, image).state == "done"


def test_an_image_that_was_switched_off_meanwhile_fails_late_and_another_helps(nova, make_server, log_in, admin):
    server = make_server()
    provider = log_in()
    image = nova.put_image("goes away")
    option = provider.choose("web1", "goes away")
    admin.image.deactivate_image(image)
    task = provider.boot_into("web1", option, provider.reboot_baseline("web1"))
    nova.wait_for(server, "ERROR", 60)
    until(lambda: "is unacceptable" in provider.read_task("web1", task.id).text, 30, every=0.1)
    told = provider.read_task("web1", task.id)
    assert (told.state, f"Image {image} is unacceptable" in told.text) == ("failed", True)
    provider.check_rights("web1")
    assert rescue(provider).state == "done"
    assert boot_disk(provider).state == "done"
    assert provider.read_server("web1").settings["status"] == "ACTIVE"


def test_an_image_that_was_deleted_is_told(nova, make_server, log_in):
    make_server()
    image = nova.put_image("gone")
    provider = log_in()
    assert provider.boot_option("web1", image).name == "gone"
    nova.remove_image(image)
    with pytest.raises(NotFound):
        provider.boot_option("web1", image)


# cinder


def test_a_server_on_a_volume_goes_there_and_back_and_keeps_it(nova, make_server, log_in, connect):
    server = make_server(volume_backed=True, user="member")
    volume = nova.show(server)["os-extended-volumes:volumes_attached"][0]["id"]
    cinder = connect("member").block_storage
    assert [found["server_id"] for found in cinder.get_volume(volume).attachments] == [server]
    provider = log_in()
    with pytest.raises(BadInput, match=f"hw_rescue_device.*system-rescue \\(id {nova.rescue_image}\\)"):
        provider.choose("web1", "debian-13")
    assert rescue(provider).state == "done"
    assert provider.read_server("web1").boot == nova.rescue_image
    assert cinder.get_volume(volume).status == "in-use"
    assert boot_disk(provider).state == "done"
    assert [found["server_id"] for found in cinder.get_volume(volume).attachments] == [server]


# Several at once


def test_two_servers_at_a_time(nova, make_server, log_in):
    servers = [make_server(name, wait=False) for name in ("web1", "web2")]
    for server in servers:
        nova.wait_for(server, "ACTIVE", 120)
    provider = log_in()
    option = provider.choose("web1", "best")
    for name in ("web1", "web2"):
        provider.boot_into(name, option, provider.reboot_baseline(name), password="ours")
    for server in servers:
        nova.wait_for(server, "RESCUE", 60)
        assert nova.show(server)["metadata"] == {NOTE: nova.rescue_image}
