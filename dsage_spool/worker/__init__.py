"""The worker: claims jobs, runs them in child processes, delivers signed results. Never unpickles."""
