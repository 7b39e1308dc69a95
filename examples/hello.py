"""Say hello from wherever a worker is:  python examples/hello.py [SPOOL]"""

import platform
import sys

import dsage_spool

with dsage_spool.connect(sys.argv[1] if len(sys.argv) > 1 else None) as session:
    job = session.submit(platform.node)
    print(f"hello from {job.result()}, as {job.id}")
