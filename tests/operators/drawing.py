"""Makes docs/dashboard.svg from a run of the scene that the tests judge: `python -m tests.operators.drawing`.

A minute of traffic follows the scene's, so that there is a course to see: two workers, a store that fsyncs every
write, a sandbox Stripe, and a real Prometheus that looks once a second.
"""

import sys
import time
from math import sin
from typing import Final

from grafana.picture import Span, asking, picture
from tests.house.repo import ROOT
from tests.operators.files import programs
from tests.operators.scene import Scene, scene

FILE: Final = ROOT / "docs" / "dashboard.svg"
SAID: Final = "a minute of the tests' traffic: two workers, a sandbox Stripe, a Prometheus that looks every second"
SECONDS: Final = 75


def traffic(play: Scene) -> None:
    """Usage of some organisations, that comes and goes."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SECONDS:
        for number in range(2 + round(3 * (1 + sin(passed / 7)))):
            play.track(f"org-{number}", ("api_requests", "scans", "wallet_checks")[number % 3], 1 + number)
        play.service.call("/usage/acme", token=play.token)


def main() -> None:
    """Run the scene and draw it."""
    for program in programs("prometheus"):
        with scene(program) as play:
            traffic(play)
            end_s = float(play.prometheus.ask("query?query=time()")["result"][1])
            span = Span(end_s - SECONDS - 30, end_s, rate_s=10)
            FILE.write_text(picture(asking(play.prometheus.url), span, SAID), encoding="utf-8")
            return
    sys.exit("prometheus is missing: apt install prometheus")


if __name__ == "__main__":
    main()
