"""Stand between a client and a server on http and injure the answers, by chance with a seed. Point the client's
endpoint (AWS_ENDPOINT_URL) at the address that is printed. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "FAULTS is KIND[@GLOB]:PROBABILITY[:NAME=NUMBER...], with commas between, such as "
        "'503:0.05:burst=3,cut@*.tar:0.05,stall:0.02:seconds=15'. Kinds: 429 500 502 503 504 (error statuses), cut and "
        "reset (the connection ends inside the body), stall and hang (a pause inside the body, before the headers), "
        "short and fewer (bytes missing at the end, against and with Content-Length), full200 (the whole object for a "
        "range), etag (another one), flip (one byte), slow."
    )
    parser.add_argument("--upstream", required=True, metavar="URL", help="the server, as http://host:port")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    parser.add_argument("--faults", default="", help="which, and how often (default: none; see below)")
    parser.add_argument("--seed", type=int, default=0, help="other faults at other requests (default 0)")
    parser.add_argument("--log", type=Path, metavar="FILE", help="a JSON line for each request, appended")
    parser.add_argument("--json", action="store_true", help="the address and the summary as JSON, a line each")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes; then print what happened."""
    from s3prl_stream.chaos import ChaosProxy
    from s3prl_stream.errors import UsageError

    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: a port is 1 to 65535; 0 takes a free one")
    proxy = ChaosProxy(args.upstream, args.faults, seed=args.seed, port=args.port, log=args.log)
    # Blocked before the proxy's thread starts, so that only the wait below gets them, even one that comes at once.
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with proxy:
            if args.json:
                print(json.dumps({"url": proxy.url}), flush=True)
            else:
                print(f"{proxy.url} -> {args.upstream}  (Ctrl-C ends it)", flush=True)
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    num_bytes = sum(proxy.bytes_by_path.values())
    if args.json:
        print(json.dumps({"requests": proxy.num_requests, "bytes": num_bytes, "faults": proxy.faults}))
        return 0
    injured = ", ".join(f"{kind} {count}" for kind, count in sorted(proxy.faults.items())) or "none"
    print(f"{proxy.num_requests} requests, {num_bytes / 1e6:.1f} MB, faults: {injured}")
    return 0
