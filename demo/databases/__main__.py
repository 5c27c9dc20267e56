"""Run the databases until this process is told to stop: `python -m demo.databases`."""

import argparse
from contextlib import suppress

from demo.databases.control import create_app
from demo.upstreams.fault import FaultSwitch
from demo.upstreams.server import serve


def main() -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m demo.databases", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where HTTP is spoken")
    parser.add_argument("--primary-port", type=int, required=True)
    parser.add_argument("--replica-port", type=int, required=True)
    arguments = parser.parse_args()
    app = create_app(primary_port=arguments.primary_port, replica_port=arguments.replica_port)
    with suppress(KeyboardInterrupt):
        serve(app, FaultSwitch(), port=arguments.port)


if __name__ == "__main__":
    main()
