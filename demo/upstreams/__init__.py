"""The services the shop depends on, one process each, with a switch to break every one.

`python -m demo.upstreams users --port 7001` serves over HTTP; `mail` speaks SMTP on its port
and HTTP on `--control-port`. All have the control surface of `demo.upstreams.control`.
"""
