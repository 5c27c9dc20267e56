"""Run one upstream service in this process until it is told to stop."""

import argparse
from contextlib import suppress
from importlib import import_module

from demo.upstreams.fault import FaultSwitch
from demo.upstreams.server import serve

_HTTP_SERVICES = ("users", "recommendations", "payments", "search")


def main() -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM."""
    arguments = _parser().parse_args()
    switch = FaultSwitch()
    # Each service imports its own needs only: the demo starts five of them at once.
    service = import_module(f"demo.upstreams.{arguments.service}")
    if arguments.service == "mail":
        app, port = service.create_app(switch, port=arguments.port), arguments.control_port
    else:
        app, port = service.create_app(switch), arguments.port
    with suppress(KeyboardInterrupt):
        serve(app, switch, port=port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.upstreams", description=__doc__)
    services = parser.add_subparsers(dest="service", required=True)
    for name in _HTTP_SERVICES:
        services.add_parser(name).add_argument("--port", type=int, required=True)
    mail = services.add_parser("mail")
    mail.add_argument("--port", type=int, required=True, help="where SMTP is spoken")
    mail.add_argument("--control-port", type=int, required=True, help="where HTTP is spoken")
    return parser


if __name__ == "__main__":
    main()
