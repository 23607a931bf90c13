"""What the clients written in Python share: each job with a client of its own, and the count."""

import sys
import traceback


def run(jobs, connected):
    """Does the jobs and ends the process, which has failed unless all were done."""
    passed = failed = 0
    for job in jobs:
        try:
            with connected() as client:
                job(client)
            passed += 1
        except Exception:
            print(f"FAIL {job.__name__}")
            traceback.print_exc()
            failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
