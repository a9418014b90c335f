# Copyright (c) 2026 The lifeboat.rescue contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that the controller-side modules share."""

    DOCUMENTATION = r"""
options:
  provider:
    description:
      - The provider of the server.
      - Default is the host's variable C(lifeboat_provider).
    type: str
    choices: [openstack, ovh_dedicated, ovh_vps, softlayer]
  server:
    description:
      - The server's name as its provider has it, for example V(ns100001.ip-192-0-2.eu).
      - Default is the host's variable C(lifeboat_server), else the host's name in the inventory.
    type: str
  address:
    description:
      - The address at which the rescue system answers, where it is not the one that the provider tells.
      - Default is the host's variable C(lifeboat_address).
    type: str
  rescue_port:
    description:
      - The TCP port of the rescue system's SSH server.
      - Default is the host's variable C(lifeboat_rescue_port).
    type: int
    default: 22
  session_dir:
    description:
      - The folder on the controller that holds what a session must remember, one folder a server, readable by its owner only.
      - It holds the record (C(session.json)), the pinned host key (C(known_hosts)) and, where the key was made for the session,
        the key pair. Leaving rescue deletes all of it.
      - Default is the host's variable C(lifeboat_session_dir), else C(lifeboat) in Ansible's own folder (E(ANSIBLE_HOME), C(~/.ansible)).
      - In AWX, a job's home goes with the job. Name a folder that lasts, or give a private key, whose job goes on from each controller.
    type: path
  connect_timeout:
    description:
      - Seconds to wait for the SSH banner on the first check.
      - A server that is up answers within one. The wait for a booting one is not limited by this.
      - A rescue system that an open session has brought up is given a minute in any case. It may be slow, being at work.
      - Default is the host's variable C(lifeboat_connect_timeout).
    type: float
    default: 5.0
  proxy_command:
    description:
      - A command that connects its standard input and output to the server, through a bastion, as OpenSSH's C(ProxyCommand); in it C(%h)
        stands for the address, C(%p) for the port. It has no terminal.
      - Default is the host's variable C(lifeboat_proxy_command), else what OpenSSH itself would use for the host (C(ProxyJump) or
        C(ProxyCommand) in C(ansible_ssh_common_args) or in its configuration).
    type: str
notes:
  - These modules act for the host at hand and never connect to it by Ansible, so it may be dead. An action plugin of the same
    name runs on the controller; no C(delegate_to) and no C(connection=local) is needed.
  - With C(async) the module must run on the controller itself, so add C(delegate_to=localhost). Without C(async) progress is shown.
  - With C(delegate_to) the variables are those of the host at hand, as with every module.
  - The server's SSH port is reached from the controller by paramiko, directly or through O(proxy_command). No other setting of
    OpenSSH is used, but the user and the private key for the installed system.
  - The provider's API is reached as C(HTTPS_PROXY) says, also by C(socks5h://) where PySocks is installed.
  - Every option but those that say what one call is about (C(state), C(boot), C(scope), C(force)) has a host's variable, C(lifeboat_)
    and its name. C(lifeboat_progress=false) keeps the lines of progress away, which is the default where the output is JSON.
  - C(environment) counts as for a module (C(OVH_APPLICATION_KEY) and the like). C(become) has no effect.
"""

    INSTALLED = r"""
options:
  installed_host:
    description:
      - The address of the installed system, for a soft reboot and for evidence.
      - Default is where Ansible itself would connect to; where that is only the host's name, the provider's address.
      - The host's variable C(lifeboat_installed_host) goes before that.
    type: str
  installed_port:
    description:
      - The TCP port of the installed system's SSH server. Default is the one that Ansible itself would use.
      - The host's variable C(lifeboat_installed_port) goes before that.
    type: int
    default: 22
  installed_user:
    description:
      - Who logs in to the installed system. Default is whom Ansible itself would use, by OpenSSH's own configuration where nobody is named.
      - The host's variable C(lifeboat_installed_user) goes before that.
    type: str
  installed_private_key_file:
    description:
      - The private key for the installed system. Default is the one that Ansible itself would use, the first of OpenSSH's usual ones that
        is there where none is named; keys of an SSH agent are tried too.
      - The host's variable C(lifeboat_installed_private_key_file) goes before that.
    type: path
  installed_password:
    description:
      - The password for the installed system. Default is the one that Ansible itself would use.
      - It is sent to no host whose key is not known.
      - The host's variable C(lifeboat_installed_password) goes before that.
    type: str
  installed_known_hosts_file:
    description:
      - Where the installed system's host key is looked up, besides C(/etc/ssh/ssh_known_hosts). It is never written to.
      - Default is the host's variable C(lifeboat_installed_known_hosts_file).
    type: path
    default: ~/.ssh/known_hosts
"""

    KEY = r"""
options:
  public_key:
    description:
      - The public SSH key to be let in by the rescue system, one line as in C(authorized_keys).
      - Without O(private_key_file) the private one must be in an SSH agent.
      - Without O(public_key) and O(private_key_file) a key pair is made for the session, and deleted when it ends.
      - Default is the host's variable C(lifeboat_public_key).
    type: str
  private_key_file:
    description:
      - The private SSH key to log in to the rescue system with. Where O(public_key) is left out it is taken from this file.
      - Give it where the next job may run on another controller, as in AWX.
      - Default is the host's variable C(lifeboat_private_key_file).
    type: path
  rescue_user:
    description:
      - Who logs in to the rescue system, where its provider does not tell. Cloud images have users like V(debian).
      - Default is the host's variable C(lifeboat_rescue_user).
    type: str
    default: root
"""

    REBOOT = r"""
options:
  soft_timeout:
    description:
      - Seconds to wait for a soft reboot before a hard one is requested.
      - Default is the host's variable C(lifeboat_soft_timeout).
    type: float
    default: 120.0
  boot_timeout:
    description:
      - After how many seconds without the right system a hard reboot is followed by one power cycle more, and that by an error.
      - They count from when the provider has rebooted the server. Bare metal may need many minutes; raise O(wait_timeout), too, then.
      - Default is the host's variable C(lifeboat_boot_timeout).
    type: float
    default: 420.0
  wait_timeout:
    description:
      - Time limit in seconds for the whole operation, including the wait for another job on this server.
      - Default is the host's variable C(lifeboat_wait_timeout).
    type: float
    default: 1200.0
"""

    OVH = r"""
options:
  ovh_endpoint:
    description:
      - OVH's API endpoint, for example V(ovh-eu), V(ovh-ca), V(ovh-us), or a URL.
      - Default is the host's variable C(lifeboat_ovh_endpoint), else the environment variable E(OVH_ENDPOINT), else C(ovh.conf).
    type: str
  ovh_application_key:
    description:
      - The application key.
      - Default is the host's variable C(lifeboat_ovh_application_key), else E(OVH_APPLICATION_KEY), else C(ovh.conf).
    type: str
  ovh_application_secret:
    description:
      - The application secret.
      - Default is the host's variable C(lifeboat_ovh_application_secret), else E(OVH_APPLICATION_SECRET), else C(ovh.conf).
    type: str
  ovh_consumer_key:
    description:
      - The consumer key. With O(provider=ovh_dedicated) it needs the rights C(GET /dedicated/server), C(GET /dedicated/server/*),
        C(PUT /dedicated/server/*) and C(POST /dedicated/server/*/reboot); for a log-in by password also
        C(POST /dedicated/server/*/authenticationSecret), C(GET /me/notification/email/history) and
        C(GET /me/notification/email/history/*).
      - With O(provider=ovh_vps) it needs C(GET /vps), C(GET /vps/*), C(PUT /vps/*), C(POST /vps/*/reboot),
        C(GET /me/notification/email/history) and C(GET /me/notification/email/history/*); with
        C(POST /vps/*/getConsoleUrl) the result tells where to see the screen.
      - Default is the host's variable C(lifeboat_ovh_consumer_key), else E(OVH_CONSUMER_KEY), else C(ovh.conf).
    type: str
  ovh_client_id:
    description:
      - The client id of an OAuth2 service account, instead of the three keys.
      - Default is the host's variable C(lifeboat_ovh_client_id), else E(OVH_CLIENT_ID), else C(ovh.conf).
    type: str
  ovh_client_secret:
    description:
      - The client secret of an OAuth2 service account.
      - Default is the host's variable C(lifeboat_ovh_client_secret), else E(OVH_CLIENT_SECRET), else C(ovh.conf).
    type: str
  ovh_config_file:
    description:
      - An C(ovh.conf) file that counts before those of the user and of the system.
      - Default is the host's variable C(lifeboat_ovh_config_file).
    type: path
requirements:
  - Python 3.11 or later on the controller
  - paramiko 3.2 or later on the controller
  - ovh 1.2.0 or later on the controller
"""

    SOFTLAYER = r"""
options:
  softlayer_username:
    description:
      - The user name of IBM Cloud Classic (SoftLayer). With V(apikey) the key is one of IBM Cloud.
      - The user needs access to the server and the permissions C(OS Reloads and Rescue Kernel), C(IPMI Remote Management) and
        C(View Virtual Server Details) or C(View Hardware Details).
      - Default is the host's variable C(lifeboat_softlayer_username), else the environment variable E(SL_USERNAME), else
        C(~/.softlayer).
    type: str
  softlayer_api_key:
    description:
      - The API key.
      - Default is the host's variable C(lifeboat_softlayer_api_key), else E(SL_API_KEY), else C(~/.softlayer).
    type: str
  softlayer_endpoint_url:
    description:
      - The API's endpoint, for example V(https://api.service.softlayer.com/xmlrpc/v3.1/) in the private network. One with C(/rest) in
        it is spoken to by REST, any other by XML-RPC.
      - Default is the host's variable C(lifeboat_softlayer_endpoint_url), else C(~/.softlayer), else the public one.
    type: str
  softlayer_config_file:
    description:
      - A file in the format of C(~/.softlayer) that counts before those of the user and of the system.
      - Default is the host's variable C(lifeboat_softlayer_config_file).
    type: path
  softlayer_timeout:
    description:
      - How many seconds one call of the API may take.
      - Default is the host's variable C(lifeboat_softlayer_timeout), else C(~/.softlayer), else 30.
    type: float
requirements:
  - SoftLayer 6.2.9 or later on the controller
"""

    OPENSTACK = r"""
options:
  openstack_cloud:
    description:
      - The name of a cloud in C(clouds.yaml).
      - Default is the host's variable C(lifeboat_openstack_cloud), else the environment variable E(OS_CLOUD), else what the other
        E(OS_AUTH_URL) and the like say.
    type: str
  openstack_auth:
    description:
      - What the log-in needs, for example C(auth_url), C(username), C(password), C(project_name), C(user_domain_name)
        and C(project_domain_name); for O(openstack_auth_type=v3applicationcredential) C(auth_url), C(application_credential_id)
        and C(application_credential_secret). The user needs the role C(member).
      - Default is the host's variable C(lifeboat_openstack_auth), else C(clouds.yaml), else the environment.
    type: dict
  openstack_auth_type:
    description:
      - The kind of the log-in, for example V(password) or V(v3applicationcredential).
      - Default is the host's variable C(lifeboat_openstack_auth_type), else C(clouds.yaml), else E(OS_AUTH_TYPE).
    type: str
  openstack_region_name:
    description:
      - The region.
      - Default is the host's variable C(lifeboat_openstack_region_name), else C(clouds.yaml), else E(OS_REGION_NAME).
    type: str
  openstack_interface:
    description:
      - Which of the services' endpoints to use.
      - Default is the host's variable C(lifeboat_openstack_interface), else C(clouds.yaml), else E(OS_INTERFACE).
    type: str
    choices: [admin, internal, public]
  openstack_validate_certs:
    description:
      - Whether the certificates of the API must be valid.
      - Default is the host's variable C(lifeboat_openstack_validate_certs), else C(clouds.yaml), else V(true).
    type: bool
  openstack_ca_cert:
    description:
      - A file with the certificates of the authorities to trust.
      - Default is the host's variable C(lifeboat_openstack_ca_cert), else C(clouds.yaml), else E(OS_CACERT).
    type: path
requirements:
  - openstacksdk 1.1.0 or later on the controller, for O(provider=openstack)
"""
