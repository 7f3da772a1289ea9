"""The stand-in for Stripe as a process: `python -m metering.sandbox_worker PARENT_PID LISTEN_FD PULSE_FD`.

`serve` starts it as it starts a worker: it answers on the parent's socket, ends with the parent, and beats.
"""

import sys
from typing import Final

from metering.serve_worker import main

APP: Final = "metering.billing.sandbox.serving:create_app"

if __name__ == "__main__":
    main(sys.argv[1:], APP, dated=False)  # its clock is the data set's
