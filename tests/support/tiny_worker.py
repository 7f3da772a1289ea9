"""A worker that serves the tiny app: `metering.serve_worker` in every other way."""

import sys

from metering import serve_worker

if __name__ == "__main__":
    serve_worker.main(sys.argv[1:], app="tests.support.tiny_app:TinyApp")
