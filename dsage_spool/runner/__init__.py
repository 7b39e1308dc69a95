"""Where jobs run: warm slot processes, and the child that each of them forks for each job.

    worker ──frames──> slot (slot.py, running.py) ──fork──> child (child.py)

No process here has credentials or a line to the spool. Only the child opens a payload.
"""
