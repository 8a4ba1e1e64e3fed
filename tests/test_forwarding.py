"""Where requests come from, and with which scheme, behind one proxy and behind several."""

from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler
from traitlets import TraitError

from kaos_hub.service.config.service import ServiceConfig
from kaos_hub.service.web.forwarding import public_server
from kaos_hub.service.web.proxies import Proxies
from tests.hub import free_port


class Says(RequestHandler):
    """Tells the asker what the service would believe."""

    def get(self) -> None:
        self.finish(f"{self.request.protocol} {self.request.remote_ip}")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    server = public_server(Application([("/", Says)]), Proxies([ip_network("203.0.113.0/24")]))
    port = free_port()
    server.listen(port, "127.0.0.1")
    yield f"http://127.0.0.1:{port}/"
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize(
    ("addresses", "schemes", "said"),
    [
        ("192.0.2.7", "http", "http 192.0.2.7"),
        ("192.0.2.7", "https", "https 192.0.2.7"),
        # An ingress controller ends TLS, and the Hub's proxy speaks HTTP with it.
        ("192.0.2.7, 203.0.113.9", "https,http", "https 192.0.2.7"),
        ("192.0.2.7, 203.0.113.9", "http,https", "http 192.0.2.7"),
        ("192.0.2.7, 203.0.113.8, 203.0.113.9", "https, http, http", "https 192.0.2.7"),
        # Of several proxies one said nothing.
        ("192.0.2.7, 203.0.113.8, 203.0.113.9", "https,http", "https 192.0.2.7"),
        # What a client claims stands before what a proxy appends.
        ("6.6.6.6, 192.0.2.7", "https,http", "http 192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 203.0.113.9", "https,http,https", "http 192.0.2.7"),
        ("203.0.113.9", "https", "https 127.0.0.1"),
        ("", "", "http 127.0.0.1"),
        ("192.0.2.7", "gopher", "http 192.0.2.7"),
    ],
)
async def test_each_proxy_is_believed_in_what_it_saw(
    url: str, addresses: str, schemes: str, said: str
) -> None:
    headers = {"X-Forwarded-For": addresses, "X-Forwarded-Proto": schemes}
    answer = await AsyncHTTPClient().fetch(url, headers=headers)
    assert answer.body.decode() == said


async def test_a_name_is_all_addresses_that_it_has() -> None:
    """As the chart names the proxy's pod; a name that is none yet keeps nothing from working."""
    proxies = Proxies(names=["localhost", "nowhere.invalid"])
    assert ip_address("127.0.0.1") not in proxies
    await proxies.look_up()
    assert ip_address("127.0.0.1") in proxies
    assert ip_address("127.0.0.2") not in proxies


@pytest.mark.parametrize("wrong", ["10.0.0.0/99", "10.0.0.300", "2001:db8::/zz", "a b", "-a", ""])
def test_what_is_no_proxy_is_refused_by_its_setting(wrong: str) -> None:
    with pytest.raises(TraitError, match="trusted_proxies"):
        ServiceConfig(trusted_proxies=["proxy-pods.kaos", wrong]).proxies()
