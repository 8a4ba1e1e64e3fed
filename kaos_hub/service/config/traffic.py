"""Settings of the limits of requests."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from traitlets import Float, Integer, List, Unicode, Union
from traitlets.config import Configurable

from kaos_hub.service.config.trainings import checked
from kaos_hub.service.web.proxies import Proxies
from kaos_hub.service.web.traffic import Allowed, Pace
from kaos_hub.util.quantities import parse_duration, parse_memory

_NAME = re.compile(r"(?=.{1,253}\Z)(?!(.*\.)?\d+\Z)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
"""A host name: an address ends with a number or has a colon, a network has a slash."""


class TrafficConfig(Configurable):
    """The settings of the service that keep one user from holding up the others."""

    request_rate = Float(
        100.0,
        min=0,
        help="""Requests (per second) that each user may send in the long run, and that may come
        from each address without a login; 0 is any number.

        Default: 100. Programs and pages need a few; one user alone cannot keep the service busy.
        What is more is answered with 429 and the seconds to wait; command line and SDK wait.""",
    ).tag(config=True)

    request_burst = Integer(
        1000,
        min=1,
        help="""Requests (count) that each user may send at once after a pause.

        Default: 1000, so that what comes in bursts (scripts, many cells) is never slowed down.""",
    ).tag(config=True)

    max_uploads = Integer(
        32,
        min=0,
        help="""Requests (count) of each user whose bodies are on their way at once; 0 is any
        number.

        Default: 32. The command line sends on four connections at once.""",
    ).tag(config=True)

    max_streams = Integer(
        64,
        min=0,
        help="""Streams (count) that each user may have open at once: events, logs and archives; 0
        is any number.

        Default: 64. A page has one or two, a command that follows one.""",
    ).tag(config=True)

    min_upload_rate = Union(
        [Integer(), Unicode()],
        default_value="1Ki",
        help="""Bytes (or `1Ki`) per second that a body must bring on average of half a minute; 0
        is any pace. A slower one is ended with 408.

        Default: 1Ki, which the worst telephone line does. Bodies that never end cost memory.""",
    ).tag(config=True)

    max_upload_time = Union(
        [Integer(), Unicode()],
        default_value="24h",
        help="""Seconds (or `24h`) that the upload of objects or of an archive may take in one
        request.

        Default: a day. Other bodies have five minutes, refused ones one.""",
    ).tag(config=True)

    trusted_proxies = List(
        Unicode(),
        help="""Addresses, networks (like `10.0.0.0/8`) or host names of proxies in front of the
        service: what they say of where a request comes from (`X-Forwarded-For`,
        `X-Forwarded-Proto`) is believed. Names are looked up every 10 seconds.

        Default: none besides this machine, on which the Hub's proxy runs; the chart names the
        proxy's pod. Set it where the proxy runs elsewhere, or another stands before it; else all
        requests seem to come from that.""",
    ).tag(config=True)

    def allowed(self) -> Allowed:
        """Return the limits of each user's requests."""
        return Allowed(self.request_rate, self.request_burst, self.max_uploads, self.max_streams)

    def pace(self) -> Pace:
        """Return the minimum pace of bodies."""
        least = checked(
            "min_upload_rate",
            lambda: parse_memory(self.min_upload_rate) if self.min_upload_rate else 0,
        )
        longest = checked("max_upload_time", lambda: parse_duration(self.max_upload_time))
        return Pace(least=least, longest=float(longest or 10 * 365 * 86400))

    def proxies(self) -> Proxies:
        """Return the proxies on other machines that are trusted."""
        names = [one for one in self.trusted_proxies if _NAME.fullmatch(one)]
        numbers = [one for one in self.trusted_proxies if one not in names]
        networks: list[IPv4Network | IPv6Network] = checked(
            "trusted_proxies", lambda: [ip_network(one, strict=False) for one in numbers]
        )
        return Proxies(networks, names)
